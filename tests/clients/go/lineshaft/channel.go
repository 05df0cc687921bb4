// Package lineshaft has what programs that stay need: a channel that repeats, and a watch that resumes.
package lineshaft

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // client-side health checks, as the service config wants them
	"google.golang.org/grpc/keepalive"
)

// Connect makes a channel to all servers behind an address such as `dns:///lineshaft-headless:7070`.
func Connect(address, serviceConfig string) (*grpc.ClientConn, error) {
	reconnect := backoff.DefaultConfig
	reconnect.MaxDelay = 5 * time.Second
	return grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Minute}),
	)
}
