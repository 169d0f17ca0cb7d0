package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// UnreachableError says why a client got no answer. It unwraps to the cause, so
// that fs.ErrPermission and fs.ErrNotExist tell what is wrong with a socket.
type UnreachableError struct {
	Server string // as given to [NewClient]
	Reason string // for people: what happened, and what may help
	Err    error
}

func (e *UnreachableError) Error() string { return e.Server + ": " + e.Reason }

// Unwrap returns the cause.
func (e *UnreachableError) Unwrap() error { return e.Err }

// notRevoked asks the CRL about the certificate of a peer.
func notRevoked(authority *trust.Authority) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		return authority.Verify(state.PeerCertificates[0], state.PeerCertificates[1:], time.Now(), x509.ExtKeyUsageServerAuth)
	}
}

// explain turns the error of a connection into one for people. What the server
// itself said passes unchanged.
func (c *Client) explain(ctx context.Context, method string, err error) error {
	var fault *Fault
	if errors.As(err, &fault) {
		return fault
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, errTimeout) && !errors.Is(cause, errSilent) &&
		!errors.Is(cause, context.DeadlineExceeded) {
		return cause
	}
	var inURL *url.Error
	if errors.As(err, &inURL) {
		err = inURL.Err // the method and the URL help nobody
	}
	reason := c.reason(err)
	if reason == "" {
		reason = err.Error()
	}
	if method != http.MethodGet && !neverSent(err) {
		reason += "; whether the write was done is not known, the history says"
	}
	return &UnreachableError{Server: c.server, Reason: reason, Err: err}
}

// neverSent is true of errors that come before a request is on its way.
func neverSent(err error) bool {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return true
	}
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	return errors.As(err, &certificate) || errors.As(err, &record) ||
		errors.Is(err, http.ErrSchemeMismatch) || errors.Is(err, trust.ErrRevoked)
}

// reason says what a connection's error means, "" where it is none.
func (c *Client) reason(err error) string {
	var (
		hostname  x509.HostnameError
		unknown   x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		other     *tls.CertificateVerificationError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		name      *net.DNSError
		operation *net.OpError
		timeout   net.Error
	)
	switch {
	case errors.Is(err, trust.ErrRevoked):
		return "the server's certificate is not to be trusted: " + err.Error()
	case errors.As(err, &hostname):
		return fmt.Sprintf("the server's certificate is not for this name: it is for %q", certificateNames(hostname.Certificate))
	case errors.As(err, &unknown):
		return "the server's certificate is not of the given CA"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the server's certificate is not valid now, but from %s to %s",
			invalid.Cert.NotBefore.Format(time.RFC3339), invalid.Cert.NotAfter.Format(time.RFC3339))
	case errors.As(err, &other):
		return "the server's certificate is not to be trusted: " + other.Err.Error()
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "what listens there does not speak TLS"
	case errors.As(err, &alert):
		return "the server ended the TLS handshake: " + alert.Error()
	case errors.Is(err, fs.ErrPermission):
		return "permission denied: only root and the group of the socket may use it"
	case errors.Is(err, fs.ErrNotExist):
		return "there is no such socket: is puppetsrv running, and does its Corefile say `admin " + c.server + "`?"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: is puppetsrv running, and does its Corefile say `admin`?"
	case errors.As(err, &name):
		return fmt.Sprintf("the host name %s cannot be resolved", name.Name)
	case errors.Is(err, errSilent):
		return errSilent.Error()
	case errors.Is(err, errTimeout), errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the server closed the connection"
	case errors.As(err, &operation):
		return operation.Err.Error()
	}
	return ""
}

// certificateNames are the names that a certificate is for.
func certificateNames(c *x509.Certificate) []string {
	names := c.DNSNames
	for _, ip := range c.IPAddresses {
		names = append(names[:len(names):len(names)], ip.String())
	}
	return names
}
