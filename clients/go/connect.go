package lineshaft

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // client-side health checks, which the service config requests
	"google.golang.org/grpc/keepalive"
)

// serviceConfig spreads calls over all servers of a DNS name that report that they serve. This package retries itself.
const serviceConfig = `{
  "loadBalancingConfig": [{"round_robin": {}}],
  "healthCheckConfig": {"serviceName": ""}
}`

const (
	pingAfter    = time.Minute
	reconnectMax = 5 * time.Second
	// messageBytesMax is that of a task with the largest payload and result.
	messageBytesMax = 144 << 20
)

// ClientOption sets something about a client or worker.
type ClientOption func(*clientSettings)

type clientSettings struct {
	token     string
	tls       *tls.Config
	namespace string
	trace     func(context.Context) map[string]string
	dial      []grpc.DialOption
}

// WithToken sends this API key or JWT with every call. It is sent only over TLS, or to this machine.
func WithToken(token string) ClientOption {
	return func(s *clientSettings) { s.token = token }
}

// WithTLS connects with TLS; &tls.Config{} trusts the certificates of the system.
func WithTLS(config *tls.Config) ClientOption {
	return func(s *clientSettings) { s.tls = config }
}

// WithNamespace submits tasks in this namespace unless [InNamespace] sets another one.
func WithNamespace(namespace string) ClientOption {
	return func(s *clientSettings) { s.namespace = namespace }
}

// WithTraceContext sends the W3C trace context that the function returns, under the keys traceparent and tracestate, with each
// submission, so that the task belongs to the trace of its submitter. What else it returns, such as baggage, belongs to a call, so
// that the submission does not share one with others.
func WithTraceContext(trace func(context.Context) map[string]string) ClientOption {
	return func(s *clientSettings) { s.trace = trace }
}

// WithDialOptions adds options of the gRPC connection, such as the stats handler of OpenTelemetry.
func WithDialOptions(options ...grpc.DialOption) ClientOption {
	return func(s *clientSettings) { s.dial = append(s.dial, options...) }
}

func (s *clientSettings) connect(address string) (*grpc.ClientConn, error) {
	target, err := s.secure(address)
	if err != nil {
		return nil, err
	}
	if s.token, err = tokenOr(s.token); err != nil {
		return nil, err
	}
	reconnect := backoff.DefaultConfig
	reconnect.BaseDelay, reconnect.MaxDelay = retryMin, reconnectMax
	options := []grpc.DialOption{
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: reconnectMax}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax)),
		grpc.WithUserAgent("lineshaft-go/" + Version),
	}
	transport := insecure.NewCredentials()
	if s.tls != nil {
		transport = credentials.NewTLS(s.tls)
	}
	options = append(options, grpc.WithTransportCredentials(transport))
	if s.token != "" {
		if s.tls == nil && !isLoopback(target) {
			return nil, errors.New("a token is sent only over TLS: use https:// or WithTLS")
		}
		options = append(options, grpc.WithPerRPCCredentials(bearer{s.token, s.tls != nil}))
	}
	return grpc.NewClient(target, append(options, s.dial...)...)
}

// secure returns the target of the address, and completes the settings of TLS from its scheme and the environment.
func (s *clientSettings) secure(address string) (target string, err error) {
	target, isPlain := strings.CutPrefix(address, "http://")
	target, isSecure := strings.CutPrefix(target, "https://")
	if isPlain || isSecure {
		target = strings.TrimSuffix(target, "/")
	}
	if _, _, err := net.SplitHostPort(target); isSecure && err != nil {
		target = net.JoinHostPort(target, "443")
	}
	if isPlain && s.tls != nil {
		return "", errors.New("is not https, but TLS is set")
	}
	if s.tls != nil {
		return target, nil
	}
	ca, certificate, key := os.Getenv("LINESHAFT_TLS_CA"), os.Getenv("LINESHAFT_TLS_CERT"), os.Getenv("LINESHAFT_TLS_KEY")
	if !isSecure && (isPlain || ca == "" && certificate == "") {
		return target, nil
	}
	s.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return "", fmt.Errorf("LINESHAFT_TLS_CA: %w", err)
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM(pem) {
			return "", fmt.Errorf("LINESHAFT_TLS_CA: %s has no certificate in PEM format", ca)
		}
	}
	if certificate != "" {
		identity, err := tls.LoadX509KeyPair(certificate, key)
		if err != nil {
			return "", fmt.Errorf("LINESHAFT_TLS_CERT, LINESHAFT_TLS_KEY: %w", err)
		}
		s.tls.Certificates = []tls.Certificate{identity}
	}
	return target, nil
}

func tokenOr(token string) (string, error) {
	if token != "" {
		return token, nil
	}
	if token = os.Getenv("LINESHAFT_TOKEN"); token != "" {
		return strings.TrimSpace(token), nil
	}
	path := os.Getenv("LINESHAFT_TOKEN_FILE")
	if path == "" {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("LINESHAFT_TOKEN_FILE: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// isLoopback reports whether the target is on this machine.
func isLoopback(target string) bool {
	if strings.HasPrefix(target, "unix:") {
		return true
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(target, "dns:///"))
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// bearer sends a token with every call.
type bearer struct {
	token    string
	needsTLS bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.needsTLS }
