// Package lineshaft has what long-running programs need: a channel with retries, and a watch that resumes.
package lineshaft

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/health" // client-side health checks, which the service config requests
	"google.golang.org/grpc/keepalive"
)

// Connect makes a channel to all servers of an address such as `dns:///lineshaft-headless:7070`.
// The transport is insecure.NewCredentials(), or credentials.NewClientTLSFromFile(ca, "") with TLS.
func Connect(
	address, serviceConfig string, transport credentials.TransportCredentials, more ...grpc.DialOption,
) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = 5 * time.Second
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}),
	}
	return grpc.NewClient(address, append(options, more...)...)
}

// Token implements the credentials for grpc.WithPerRPCCredentials. It is never sent without TLS.
type Token string

func (token Token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (Token) RequireTransportSecurity() bool { return true }
