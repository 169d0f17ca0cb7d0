package admin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// Config is what a server is made of.
type Config struct {
	// Addresses are "unix:///PATH" or "https://IP:PORT".
	Addresses []string
	// Backend may be nil at first: requests are answered with 503 until there is one.
	Backend Backend
	// Identity and Authority are needed for https alone.
	Identity  *trust.Identity
	Authority *trust.Authority
	Allow     Allow
	Log       Logger
	Limits    Limits
}

// Logger is what a server needs of a log.
type Logger interface {
	Infof(format string, v ...any)
	Warningf(format string, v ...any)
	Errorf(format string, v ...any)
}

// Server answers the API on one or more addresses. Its methods are safe for
// concurrent use.
type Server struct {
	authority *trust.Authority
	limits    Limits
	log       *quietLog
	mux       *http.ServeMux
	http      *http.Server
	listeners []*listener
	rates     *rates
	streams   *streams
	serving   sync.WaitGroup // one for each listener
	closing   chan struct{}  // closed by the first Close
	close     sync.Once
	closeErr  error
	identity  atomic.Pointer[trust.Identity] // nil without https

	mu      sync.Mutex
	backend Backend
	changed chan struct{} // closed when backend is another
	allow   allowed
	fresh   map[net.Conn]struct{} // connections that have not asked anything yet
}

// Listen starts a server on all of the configured addresses, or on none.
func Listen(cfg Config) (*Server, error) {
	if len(cfg.Addresses) == 0 {
		return nil, errors.New("admin: no address to listen on")
	}
	limits := cfg.Limits.withDefaults()
	s := &Server{
		authority: cfg.Authority,
		limits:    limits,
		log:       newQuietLog(cfg.Log),
		rates:     newRates(limits),
		streams:   newStreams(limits),
		closing:   make(chan struct{}),
		backend:   cfg.Backend,
		changed:   make(chan struct{}),
		allow:     newAllowed(cfg.Allow),
		fresh:     make(map[net.Conn]struct{}),
	}
	s.mux = s.newMux()
	for _, a := range cfg.Addresses {
		l, err := s.listen(a, cfg)
		if err != nil {
			for _, l := range s.listeners {
				l.Close()
			}
			return nil, fmt.Errorf("admin %s: %w", a, err)
		}
		s.listeners = append(s.listeners, l)
	}
	s.identity.Store(cfg.Identity)
	s.http = s.newHTTP()
	for _, l := range s.listeners {
		s.serving.Go(func() { s.serve(l) })
	}
	return s, nil
}

func (s *Server) newHTTP() *http.Server {
	h := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: s.limits.ReadHeader,
		WriteTimeout:      s.limits.Write,
		IdleTimeout:       s.limits.Idle,
		// No ReadTimeout: it would end event streams and long waits, as net/http goes
		// on reading to see whether the client is still there. See request.body.
		MaxHeaderBytes: max(s.limits.Header-4096, 1), // net/http allows 4096 more
		// `OPTIONS *` is answered by net/http itself otherwise, whoever asks.
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(s.log.writer(), "", 0),
		ConnContext:                  connContext,
		ConnState:                    s.connState,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 64,
			SendPingTimeout:      s.limits.Heartbeat,
			PingTimeout:          s.limits.Stall,
			WriteByteTimeout:     s.limits.Stall,
		},
	}
	if s.identity.Load() != nil {
		h.TLSConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Written out, as net/http sets HTTP/2 up once: when it is the unix socket's
			// turn first, it would offer HTTP/2 here and not speak it.
			NextProtos: []string{"h2", "http/1.1"},
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
				return &s.identity.Load().Certificate, nil
			},
			// Any certificate is let in, and none too: the verdict comes with the
			// request, in words. That its sender has the key is seen here.
			ClientAuth: tls.RequestClientCert,
			// A full handshake each time: nothing of an earlier one is believed.
			SessionTicketsDisabled: true,
		}
	}
	return h
}

func (s *Server) serve(l *listener) {
	var err error
	if l.local {
		err = s.http.Serve(l)
	} else {
		err = s.http.ServeTLS(l, "", "")
	}
	if !errors.Is(err, http.ErrServerClosed) {
		s.log.Errorf("admin %s: no longer served: %s", l.address, err)
	}
}

// Addresses returns where the server listens, in the order of the configuration and
// written in its way. A port of 0 is the one that it got.
func (s *Server) Addresses() []string {
	addresses := make([]string, len(s.listeners))
	for i, l := range s.listeners {
		addresses[i] = l.address
	}
	return addresses
}

// SetBackend replaces what is shown and changed. Requests under way end with the
// old one; event streams go on with the new, after the last event they had.
func (s *Server) SetBackend(b Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.backend = b
	close(s.changed)
	s.changed = make(chan struct{})
}

// current returns the backend, and a channel that is closed when it is replaced.
func (s *Server) current() (Backend, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backend, s.changed
}

// SetAllow replaces who may ask, from the next request on.
func (s *Server) SetAllow(a Allow) {
	allow := newAllowed(a)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.allow = allow
}

// SetIdentity replaces the certificate that https shows, from the next connection
// on: agents renew theirs. It must not be nil where the server has an https address.
func (s *Server) SetIdentity(id *trust.Identity) { s.identity.Store(id) }

// Close ends the event streams, takes no new requests, and waits for those under
// way until ctx ends; then they are cut off, and that is its error.
func (s *Server) Close(ctx context.Context) error {
	s.close.Do(func() {
		close(s.closing)
		// net/http would give connections without a request another five seconds.
		s.closeFresh()
		err := s.http.Shutdown(ctx)
		if err != nil {
			err = fmt.Errorf("admin: requests were cut off: %w", errors.Join(err, s.http.Close()))
		}
		s.serving.Wait()
		s.closeErr = err
	})
	return s.closeErr
}

// connState keeps the connections that have not asked anything.
func (s *Server) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state != http.StateNew {
		delete(s.fresh, c)
		return
	}
	s.fresh[c] = struct{}{}
}

func (s *Server) closeFresh() {
	s.mu.Lock()
	fresh := s.fresh
	s.fresh = make(map[net.Conn]struct{})
	s.mu.Unlock()
	for c := range fresh {
		c.Close()
	}
}
