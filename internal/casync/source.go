package casync

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Source is whom to follow.
type Source struct {
	URL      string // https://HOST:PORT; "" is this host itself
	Certname string // what its certificate has to be of
}

// ErrNobody is wrapped by a source func's error where nobody is to be followed now.
var ErrNobody = errors.New("nobody to follow")

// Time-outs of a client.
const (
	dialTime    = 5 * time.Second
	answerTime  = 20 * time.Second // for an answer to begin, but for the wait asked for
	stallTime   = 30 * time.Second // without a byte
	glanceAtWho = 250 * time.Millisecond
	breath      = 20 * time.Millisecond // between two questions, if a source holds none
)

// Backoff between tries.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 10 * time.Second
)

// client asks one source.
type client struct {
	source Source
	http   *http.Client
}

// newClient connects as config says to a host whose certificate is of a certname: its
// address proves nothing.
func newClient(s Source, config *tls.Config) (*client, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" || s.Certname == "" {
		return nil, fmt.Errorf("%q of %q is no https://HOST:PORT of a certname", s.URL, s.Certname)
	}
	config = config.Clone()
	config.ServerName = s.Certname
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		if len(state.PeerCertificates) == 0 || trust.Certname(state.PeerCertificates[0]) != strings.ToLower(s.Certname) {
			return fmt.Errorf("the certificate is not that of %s", s.Certname)
		}
		return nil
	}
	transport := &http.Transport{
		TLSClientConfig: config, TLSHandshakeTimeout: dialTime, ForceAttemptHTTP2: true,
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		MaxIdleConnsPerHost: 2, IdleConnTimeout: 2 * maxWait,
	}
	return &client{s, &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

func (c *client) close() { c.http.CloseIdleConnections() }

// statusError is an answer that is none.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return fmt.Sprintf("%s (%d)", e.text, e.code) }

// do asks, and gives read what comes. A source that is silent for longer than wait and
// its patience is given up.
func (c *client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, wait time.Duration, read func(*http.Response) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := time.AfterFunc(wait+answerTime, func() { cancel(errors.New("it does not answer in time")) })
	defer silent.Stop()
	r, err := http.NewRequestWithContext(ctx, method, c.source.URL+path+"?"+query.Encode(), body)
	if err != nil {
		return err
	}
	response, err := c.http.Do(r)
	if err == nil {
		defer response.Body.Close()
		silent.Reset(stallTime)
		response.Body = &lively{response.Body, silent}
		switch response.StatusCode {
		case http.StatusOK, http.StatusNotModified:
			err = read(response)
		default:
			text, _ := io.ReadAll(io.LimitReader(response.Body, 1024))
			err = &statusError{response.StatusCode, strings.TrimSpace(string(text))}
		}
	}
	if err != nil {
		if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
			err = cause
		}
		return fmt.Errorf("asking %s: %w", c.source.Certname, err)
	}
	return nil
}

// lively puts off the end of who goes on to send.
type lively struct {
	io.ReadCloser
	silent *time.Timer
}

func (l *lively) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if n > 0 {
		l.silent.Reset(stallTime)
	}
	return n, err
}

// errElsewhere ends a request to who is not to be followed any more.
var errElsewhere = errors.New("another host is to be followed")

// while returns a context that ends when still no longer holds. done ends the watching.
func while(ctx context.Context, still func() bool) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for tick := time.NewTicker(glanceAtWho); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
				if !still() {
					cancel(errElsewhere)
				}
			}
		}
	}()
	return ctx, func() { cancel(nil); <-ended }
}

// sleep waits, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// backoff is the pause before the next try: longer each time, and never quite the same
// on two hosts.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, firstPause), lastPause)
	return b.last/2 + rand.N(b.last/2)
}

func (b *backoff) reset() { b.last = 0 }
