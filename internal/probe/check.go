// Package probe looks at masters from outside, as an agent would: TCP, TLS
// verified for the SRV name against the Puppet CA, then the status service. It
// owns the schedule of looking and reports observations; what they mean is
// package health's.
package probe

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/health"
)

// Limits on what a master may send.
const (
	maxHeader = 16 << 10
	maxBody   = 4 << 10
)

// Target is one master to look at.
type Target struct {
	Subject   string // the master's host name; its lookup is the last resort
	Name      string // the SRV target: what the certificate has to be valid for
	Addresses []netip.Addr
	Port      uint16
}

// Equal reports whether t and o are looked at in the same way.
func (t Target) Equal(o Target) bool {
	return t.Subject == o.Subject && t.Name == o.Name && t.Port == o.Port && slices.Equal(t.Addresses, o.Addresses)
}

// Check is how to look. It is not changed once in use.
type Check struct {
	Observer string
	TLS      *tls.Config // RootCAs is the Puppet CA; a client certificate is optional
	Path     string      // of the status service
	// Lookup finds a target that has no addresses, by its host name without the
	// final dot; the system's resolver if nil.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Now is the clock, time.Now if nil.
	Now func() time.Time
}

// Do looks at t once, for as long as ctx lasts. The connection that a success
// was seen on is returned open, for use as a tripwire; the caller closes it. It is
// the TCP connection below TLS: whatever comes on it is a reason to look, and a
// thousand idle TLS states would be most of a node's memory.
func (c *Check) Do(ctx context.Context, t Target) (health.Observation, net.Conn) {
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	start := now()
	o := health.Observation{Observer: c.Observer, Subject: t.Subject, Time: start}
	conn, err := c.look(ctx, t, &o, start)
	o.Time = now()
	o.Duration = o.Time.Sub(start)
	if err != nil {
		var f *failure
		if !errors.As(err, &f) {
			f = &failure{health.ReasonUnreachable, err}
		}
		o.Reason, o.Detail = f.reason, oneLine(err.Error())
		if ctx.Err() != nil && f.reason != health.ReasonCertificate && f.reason != health.ReasonStatus {
			o.Reason, o.Detail = health.ReasonTimeout, oneLine(f.at()+": no answer in time")
		}
		return o, nil
	}
	return o, conn
}

// failure is an error with its class.
type failure struct {
	reason health.Reason
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// at names the layer a failure happened at.
func (f *failure) at() string {
	switch f.reason {
	case health.ReasonResolve:
		return "resolving the name"
	case health.ReasonTLS:
		return "TLS"
	case health.ReasonHTTP:
		return "status"
	default:
		return "TCP"
	}
}

func fail(reason health.Reason, format string, args ...any) error {
	return &failure{reason, fmt.Errorf(format, args...)}
}

func (c *Check) look(ctx context.Context, t Target, o *health.Observation, now time.Time) (_ net.Conn, err error) {
	raw, err := c.dial(ctx, t)
	if err != nil {
		return nil, err
	}
	// Closing is what ends every blocking call below when ctx ends.
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer func() {
		if !stop() && err == nil {
			err = fail(health.ReasonTimeout, "no answer in time")
		}
		if err != nil {
			raw.Close()
		}
	}()
	name := strings.TrimSuffix(t.Name, ".")
	conn := tls.Client(raw, c.config(name))
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, fail(health.ReasonTLS, "TLS: %w", err)
	}
	chain := conn.ConnectionState().PeerCertificates
	err = c.trusted(chain, now)
	o.Certificate = health.CertificateOf(chain[0], err == nil)
	if err == nil && !o.Certificate.Covers(name) {
		err = fmt.Errorf("not valid for %s, only for %s", name, strings.Join(o.Certificate.Names, ", "))
	}
	if err != nil {
		return nil, fail(health.ReasonCertificate, "certificate: %w", err)
	}
	if err := c.status(conn, net.JoinHostPort(name, strconv.Itoa(int(t.Port)))); err != nil {
		return nil, err
	}
	return raw, nil
}

// config leaves verification to look, so that a certificate that fails can be
// told from a handshake that does.
func (c *Check) config(name string) *tls.Config {
	cfg := c.TLS.Clone()
	cfg.ServerName = name
	cfg.InsecureSkipVerify = true // look verifies
	// Nothing secret is said: the post-quantum key shares that Go adds by default
	// are a quarter of a handshake's cost, a thousand times a second.
	cfg.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384}
	return cfg
}

// trusted reports whether the chain ends in the Puppet CA and is in date.
func (c *Check) trusted(chain []*x509.Certificate, now time.Time) error {
	opts := x509.VerifyOptions{Roots: c.TLS.RootCAs, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, cert := range chain[1:] {
		opts.Intermediates.AddCert(cert)
	}
	_, err := chain[0].Verify(opts)
	return err
}

// status asks for the status service. On the agents' port an HTTP error still
// is a good connection to an agent, which then stays with that master; so
// anything but "200 running" counts as a failure here.
func (c *Check) status(conn net.Conn, host string) error {
	req := "GET " + c.Path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: puppetsrv\r\nAccept: text/plain\r\n\r\n"
	if _, err := io.WriteString(conn, req); err != nil {
		return fail(health.ReasonHTTP, "status: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(conn, maxHeader))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return fail(health.ReasonHTTP, "status: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return fail(health.ReasonHTTP, "status: %w", err)
	}
	said := strings.TrimSpace(string(body))
	if resp.StatusCode != http.StatusOK || said != "running" {
		return fail(health.ReasonStatus, "status: %d %.60q", resp.StatusCode, said)
	}
	return nil
}

// dial connects to the first address that accepts; it tries all of them at once.
func (c *Check) dial(ctx context.Context, t Target) (net.Conn, error) {
	addrs := t.Addresses
	if len(addrs) == 0 {
		lookup := c.Lookup
		if lookup == nil {
			lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
				return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
			}
		}
		var err error
		if addrs, err = lookup(ctx, strings.TrimSuffix(t.Subject, ".")); err == nil && len(addrs) == 0 {
			err = errors.New("no address")
		}
		if err != nil {
			return nil, fail(health.ReasonResolve, "resolving %s: %w", t.Subject, err)
		}
	}
	var d net.Dialer
	if len(addrs) == 1 {
		conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(addrs[0].Unmap(), t.Port).String())
		return conn, classify(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result, len(addrs))
	for _, a := range addrs {
		go func() {
			conn, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a.Unmap(), t.Port).String())
			results <- result{conn, err}
		}()
	}
	var err error
	for n := range addrs {
		r := <-results
		if r.err == nil {
			cancel() // ends the others at once
			for range len(addrs) - n - 1 {
				if late := <-results; late.conn != nil {
					late.conn.Close()
				}
			}
			return r.conn, nil
		}
		if err == nil {
			err = r.err
		}
	}
	return nil, classify(err)
}

func classify(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return fail(health.ReasonRefused, "TCP: %w", err)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return fail(health.ReasonTimeout, "TCP: %w", err)
	default:
		return fail(health.ReasonUnreachable, "TCP: %w", err)
	}
}

// oneLine makes an error fit for a log line.
func oneLine(s string) string {
	const limit = 200
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = s[:limit]
	}
	return s
}
