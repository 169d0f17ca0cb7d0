package casync_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
	"github.com/puppetsrv/puppetsrv/internal/casync"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "pull-as-child" {
		pullAsChild()
		return
	}
	goleak.VerifyTestMain(m)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wait waits until a condition holds.
func wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// site is a camaster m1 that serves over TLS, and room for a standby m3. The members'
// certificates are of another CA than the one that is copied: that makes no difference,
// and the copied one may then be broken.
type site struct {
	*cadirtest.CA
	tls    *stub.CA
	from   *cadir.Dir
	server *casync.Server
	http   *httptest.Server
	source atomic.Pointer[error] // why m1 does not serve
	url    string
	path   string // of m3's cadir
	to     *cadir.Dir

	mu    sync.Mutex
	asked []string // requests that came
}

type options struct {
	config func(*casync.ServerConfig)
	wrap   func(http.Handler) http.Handler
}

func newSite(t testing.TB, o options) *site {
	t.Helper()
	members, err := stub.NewCA("Puppet CA: members")
	must(t, err)
	s := &site{tls: members, path: filepath.Join(t.TempDir(), "puppetserver", "ca")}
	s.CA = cadirtest.New(t, filepath.Join(t.TempDir(), "puppetserver", "ca"), cadirtest.Options{})
	s.from, err = cadir.Open(s.Dir, cadir.Options{})
	must(t, err)
	s.standby(t)
	c := casync.ServerConfig{
		Dir: s.from,
		Source: func() error {
			if err := s.source.Load(); err != nil {
				return *err
			}
			return nil
		},
		Replicas: func(name string) bool { return slices.Contains([]string{"m3.example.net"}, name) },
	}
	if o.config != nil {
		o.config(&c)
	}
	s.server, err = casync.NewServer(c)
	must(t, err)
	var handler http.Handler = s.server
	if o.wrap != nil {
		handler = o.wrap(handler)
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.Path)
		s.mu.Unlock()
		handler.ServeHTTP(w, r)
	}))
	s.http.TLS = &tls.Config{
		Certificates: []tls.Certificate{s.identity(t, "m1.example.net", "puppet-camaster.example.net")},
		ClientAuth:   tls.RequireAndVerifyClientCert, ClientCAs: members.Pool(),
	}
	s.http.EnableHTTP2 = true
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // who is refused, or killed
	s.http.StartTLS()
	t.Cleanup(s.http.Close)
	s.url = s.http.URL
	return s
}

func (s *site) identity(t testing.TB, name string, more ...string) tls.Certificate {
	t.Helper()
	id, err := s.tls.Issue(stub.IssueOptions{CommonName: name, DNSNames: more})
	must(t, err)
	return id.Certificate
}

// config is a member's, as a client.
func (s *site) config(t testing.TB, name string) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{s.identity(t, name)}, RootCAs: s.tls.Pool()}
}

// standby is a new process on m3.
func (s *site) standby(t testing.TB) {
	var err error
	s.to, err = cadir.Open(s.path, cadir.Options{})
	must(t, err)
	s.to.Follow(false)
}

func (s *site) requests(path string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.asked {
		if p == path {
			n++
		}
	}
	return n
}

// stop has m1 be no camaster.
func (s *site) stop(reason string) {
	if reason == "" {
		s.source.Store(nil)
		return
	}
	err := errors.New(reason)
	s.source.Store(&err)
}

// pull runs a puller on m3 until the test ends or stop is called.
func (s *site) pull(t testing.TB, change func(*casync.PullerConfig)) (p *casync.Puller, stop func()) {
	t.Helper()
	c := casync.PullerConfig{
		Dir: s.to, TLS: s.config(t, "m3.example.net"),
		Source: func() (casync.Source, error) {
			return casync.Source{URL: s.url, Certname: "m1.example.net"}, nil
		},
	}
	if change != nil {
		change(&c)
	}
	p, err := casync.NewPuller(c)
	must(t, err)
	return p, run(t, p.Run)
}

func run(t testing.TB, f func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := f(ctx); err != nil {
			t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// same reports whether the standby is the camaster's, by its own word and its files'.
func (s *site) same(t testing.TB) bool {
	e := s.to.Evidence(t.Context())
	set, err := s.from.Look(t.Context())
	return err == nil && e.Complete && e.Hash == set.Hash && e.Error == "" && !e.Synced.IsZero()
}

func (s *site) waitSame(t testing.TB) {
	t.Helper()
	wait(t, "the standby is the camaster's", func() bool { return s.same(t) })
	must(t, cadirtest.Check(s.path))
	if is, err := s.to.Sealed(); err != nil || !is {
		t.Fatalf("the standby is sealed: %v, %v", is, err)
	}
}

func (s *site) waitProblem(t testing.TB, want string) {
	t.Helper()
	var e string
	wait(t, want, func() bool { e = s.to.Evidence(t.Context()).Error; return strings.Contains(e, want) })
}

// proxy is a TCP link that can be cut.
type proxy struct {
	net.Listener
	to    string
	limit atomic.Int64 // bytes to the client after which the link is cut; 0: none

	mu    sync.Mutex
	conns []net.Conn
}

func newProxy(t testing.TB, to string) *proxy {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{Listener: l, to: to}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, c, up)
			p.mu.Unlock()
			wg.Go(func() { p.copy(up, c, false) })
			wg.Go(func() { p.copy(c, up, true) })
		}
	})
	t.Cleanup(func() { l.Close(); p.cut(); wg.Wait() })
	return p
}

func (p *proxy) copy(to, from net.Conn, counted bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := from.Read(buffer)
		if counted && n > 0 && p.limit.Load() > 0 && p.limit.Add(int64(-n)) <= 0 {
			p.limit.Store(0)
			return
		}
		if _, e := to.Write(buffer[:n]); err != nil || e != nil {
			return
		}
	}
}

func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

func (p *proxy) url() string { return fmt.Sprintf("https://%s", p.Addr()) }
