package stub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Master is a stub Puppet server. It answers GET /status/v1/simple as
// trapperkeeper's status service does, over HTTPS with keep-alive, and 404 to
// everything else. All methods are safe for concurrent use.
type Master struct {
	addr     netip.AddrPort
	server   *http.Server
	closing  chan struct{}  // closed by the first Close
	serving  chan struct{}  // closed when the accept loop has ended
	conns    sync.WaitGroup // one for each open connection
	close    sync.Once
	requests atomic.Int64
	accepted atomic.Int64

	mu       sync.Mutex
	id       *Identity
	code     int
	body     string
	ca       bool
	delay    time.Duration
	resumed  chan struct{} // nil while running, else closed by Resume
	sockets  map[net.Conn]struct{}
	closeErr error
}

// NewMaster listens on addr (host:port, where port 0 means any free port) and
// serves with the given identity until Close.
func NewMaster(addr string, id *Identity) (*Master, error) {
	if id == nil {
		return nil, errors.New("starting a master: no identity")
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("starting a master: %w", err)
	}
	m := &Master{
		addr:    listener.Addr().(*net.TCPAddr).AddrPort(),
		closing: make(chan struct{}),
		serving: make(chan struct{}),
		id:      id,
		code:    http.StatusOK,
		body:    "running",
		sockets: make(map[net.Conn]struct{}),
	}
	m.addr = netip.AddrPortFrom(m.addr.Addr().Unmap(), m.addr.Port())

	mux := http.NewServeMux()
	mux.HandleFunc("GET /status/v1/simple", m.serveStatus)
	mux.HandleFunc("GET /status/v1/simple/ca", m.serveCAStatus)
	m.server = &http.Server{
		Handler:   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { m.serve(mux, w, r) }),
		ConnState: m.connState,
		// Probes connect and leave; that is no news.
		ErrorLog:          log.New(io.Discard, "", 0),
		ReadHeaderTimeout: time.Minute,
	}
	tlsListener := tls.NewListener(listener, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientAuth:         tls.RequestClientCert, // puppetserver's `client-auth: want`
		GetConfigForClient: m.awaitResume,
		GetCertificate:     m.certificate,
		// A resumed session shows no certificate, so a client that keeps
		// tickets would not see what SetIdentity did.
		SessionTicketsDisabled: true,
	})
	go func() {
		defer close(m.serving)
		_ = m.server.Serve(tlsListener) // always http.ErrServerClosed: only Close ends it
	}()
	return m, nil
}

// Addr is where the master listens.
func (m *Master) Addr() netip.AddrPort { return m.addr }

// Requests is the number of HTTP requests so far, whatever their answer.
func (m *Master) Requests() int { return int(m.requests.Load()) }

// Connections is the number of TCP connections accepted so far.
func (m *Master) Connections() int { return int(m.accepted.Load()) }

// SetStatus sets the answer of /status/v1/simple. At the start it is 200
// "running"; puppetserver's others are 503 with "starting", "stopping",
// "error" or "unknown".
func (m *Master) SetStatus(code int, body string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.code, m.body = code, body
}

// SetCA says whether the CA service is on: /status/v1/simple/ca is then 200
// "running", else 404. At the start it is off.
func (m *Master) SetCA(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ca = on
}

// SetIdentity sets the certificate that connections from now on are shown.
func (m *Master) SetIdentity(id *Identity) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.id = id
}

// SetDelay makes every request wait before it is answered.
func (m *Master) SetDelay(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.delay = d
}

// Pause makes the master look like a process under SIGSTOP: the kernel still
// accepts connections, and nothing answers on them, nor on those that are open.
func (m *Master) Pause() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.resumed == nil {
		m.resumed = make(chan struct{})
	}
}

// Resume ends Pause: everything that waited is answered.
func (m *Master) Resume() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.resumed != nil {
		close(m.resumed)
		m.resumed = nil
	}
}

// Close ends the master as SIGKILL would: the listener and every connection
// are closed at once, with no TLS goodbye, so that a client with an idle
// connection sees the end immediately. It returns when nothing of the master
// runs any more. Further calls do nothing and return the same.
func (m *Master) Close() error {
	m.close.Do(func() {
		close(m.closing)
		m.mu.Lock()
		for socket := range m.sockets {
			socket.Close()
		}
		m.mu.Unlock()
		err := m.server.Close()
		<-m.serving
		m.conns.Wait()
		m.mu.Lock()
		m.closeErr = err
		m.mu.Unlock()
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.closeErr
}

// connState keeps the sockets below TLS, for Close.
func (m *Master) connState(conn net.Conn, state http.ConnState) {
	socket := conn
	if t, ok := conn.(*tls.Conn); ok {
		socket = t.NetConn()
	}
	switch state {
	case http.StateNew:
		m.conns.Add(1)
		m.accepted.Add(1)
		m.mu.Lock()
		m.sockets[socket] = struct{}{}
		m.mu.Unlock()
	case http.StateClosed:
		m.mu.Lock()
		delete(m.sockets, socket)
		m.mu.Unlock()
		m.conns.Done()
	}
}

func (m *Master) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &m.id.Certificate, nil
}

func (m *Master) awaitResume(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return nil, m.wait(hello.Context())
}

// wait blocks while the master is paused.
func (m *Master) wait(ctx context.Context) error {
	for {
		m.mu.Lock()
		resumed := m.resumed
		m.mu.Unlock()
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-m.closing:
			return http.ErrServerClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// serve holds a request back while the master is delayed or paused.
func (m *Master) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	m.requests.Add(1)
	if !m.due(r.Context()) {
		// To return would be to answer 200. This is net/http's way to drop
		// the connection instead; it recovers and does not log it.
		panic(http.ErrAbortHandler)
	}
	next.ServeHTTP(w, r)
}

// due waits until the answer is due. It is never due if the client or the
// master has gone before.
func (m *Master) due(ctx context.Context) bool {
	m.mu.Lock()
	delay := m.delay
	m.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-m.closing:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return m.wait(ctx) == nil
}

func (m *Master) serveStatus(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	code, body := m.code, m.body
	m.mu.Unlock()
	answer(w, code, body)
}

func (m *Master) serveCAStatus(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	on := m.ca
	m.mu.Unlock()
	if on {
		answer(w, http.StatusOK, "running")
	} else {
		answer(w, http.StatusNotFound, "not found: ca")
	}
}

// answer writes as trapperkeeper does: the bare word, no newline.
func answer(w http.ResponseWriter, code int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, body) // a client that has left is no error here
}
