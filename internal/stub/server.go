package stub

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// server is what Master and PuppetDB have in common: an HTTPS server with keep-alive
// that can be slow, silent, or gone as after a kill. Its methods are safe for concurrent
// use.
type server struct {
	addr     netip.AddrPort
	http     *http.Server
	closing  chan struct{}  // closed by the first Close
	serving  sync.WaitGroup // the accept loop, and what runs beside it
	conns    sync.WaitGroup // one for each open connection
	close    sync.Once
	requests atomic.Int64
	accepted atomic.Int64

	mu       sync.Mutex
	id       *Identity
	code     int
	body     string
	delay    time.Duration
	resumed  chan struct{} // nil while running, else closed by Resume
	sockets  map[net.Conn]struct{}
	closeErr error
}

// start listens on addr and serves until Close. verify, which may be nil, decides on
// a connection once the client has shown what it has.
func (s *server) start(addr string, id *Identity, mux *http.ServeMux, verify func(tls.ConnectionState) error) error {
	if id == nil {
		return errors.New("no identity")
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	s.addr = listener.Addr().(*net.TCPAddr).AddrPort()
	s.addr = netip.AddrPortFrom(s.addr.Addr().Unmap(), s.addr.Port())
	s.closing = make(chan struct{})
	s.sockets = make(map[net.Conn]struct{})
	s.id, s.code, s.body = id, http.StatusOK, "running"

	mux.HandleFunc("GET /status/v1/simple", s.serveStatus)
	s.http = &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(mux, w, r) }),
		ConnState: s.connState,
		// Probes connect and leave; that is no news.
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
	}
	tlsListener := tls.NewListener(listener, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientAuth:         tls.RequestClientCert, // puppetserver's `client-auth: want`
		GetConfigForClient: s.awaitResume,
		GetCertificate:     s.certificate,
		VerifyConnection:   verify,
		// A resumed session shows no certificate, so a client that keeps
		// tickets would not see what SetIdentity did.
		SessionTicketsDisabled: true,
	})
	s.serving.Go(func() {
		_ = s.http.Serve(tlsListener) // always http.ErrServerClosed: only Close ends it
	})
	return nil
}

// Addr is where it listens.
func (s *server) Addr() netip.AddrPort { return s.addr }

// Requests is the number of HTTP requests so far, whatever their answer.
func (s *server) Requests() int { return int(s.requests.Load()) }

// Connections is the number of TCP connections accepted so far.
func (s *server) Connections() int { return int(s.accepted.Load()) }

// SetStatus sets the answer of /status/v1/simple. At the start it is 200
// "running"; puppetserver's others are 503 with "starting", "stopping",
// "error" or "unknown".
func (s *server) SetStatus(code int, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.code, s.body = code, body
}

// SetIdentity sets the certificate that connections from now on are shown.
func (s *server) SetIdentity(id *Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.id = id
}

// SetDelay makes every request wait before it is answered.
func (s *server) SetDelay(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delay = d
}

// Pause makes it look like a process under SIGSTOP: the kernel still
// accepts connections, and nothing answers on them, nor on those that are open.
func (s *server) Pause() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed == nil {
		s.resumed = make(chan struct{})
	}
}

// Resume ends Pause: everything that waited is answered.
func (s *server) Resume() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed != nil {
		close(s.resumed)
		s.resumed = nil
	}
}

// Close ends it as SIGKILL would: the listener and every connection
// are closed at once, with no TLS goodbye, so that a client with an idle
// connection sees the end immediately. It returns when nothing of it
// runs any more. Further calls do nothing and return the same.
func (s *server) Close() error {
	s.close.Do(func() {
		close(s.closing)
		s.mu.Lock()
		for socket := range s.sockets {
			socket.Close()
		}
		s.mu.Unlock()
		err := s.http.Close()
		s.serving.Wait()
		s.conns.Wait()
		s.mu.Lock()
		s.closeErr = err
		s.mu.Unlock()
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closeErr
}

// connState keeps the sockets below TLS, for Close.
func (s *server) connState(conn net.Conn, state http.ConnState) {
	socket := conn
	if t, ok := conn.(*tls.Conn); ok {
		socket = t.NetConn()
	}
	switch state {
	case http.StateNew:
		s.conns.Add(1)
		s.accepted.Add(1)
		s.mu.Lock()
		s.sockets[socket] = struct{}{}
		s.mu.Unlock()
	case http.StateClosed:
		s.mu.Lock()
		delete(s.sockets, socket)
		s.mu.Unlock()
		s.conns.Done()
	}
}

func (s *server) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &s.id.Certificate, nil
}

func (s *server) awaitResume(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return nil, s.wait(hello.Context())
}

// wait blocks while the server is paused.
func (s *server) wait(ctx context.Context) error {
	for {
		s.mu.Lock()
		resumed := s.resumed
		s.mu.Unlock()
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-s.closing:
			return http.ErrServerClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve holds a request back while the server is delayed or paused.
func (s *server) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	if !s.due(r.Context()) {
		// To return would be to answer 200. This is net/http's way to drop
		// the connection instead; it recovers and does not log it.
		panic(http.ErrAbortHandler)
	}
	next.ServeHTTP(w, r)
}

// due waits until the answer is due. It is never due if the client or the
// server has gone before.
func (s *server) due(ctx context.Context) bool {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.closing:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return s.wait(ctx) == nil
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	s.mu.Lock()
	code, body := s.code, s.body
	s.mu.Unlock()
	answer(w, code, body)
}

// answer writes as trapperkeeper does: the bare word, no newline.
func answer(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // a client that has left is no error here
}
