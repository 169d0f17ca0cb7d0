package gather_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const certname = "m1.example.net"

// host is a host's files, and where its evidence is.
type host struct {
	t   testing.TB
	ca  *stub.CA
	id  *stub.Identity
	dir string
	gather.Config
}

func newHost(t testing.TB) *host {
	t.Helper()
	ca, err := stub.NewCA("Puppet CA: " + certname)
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, ca: ca, dir: t.TempDir()}
	h.id = h.issue(stub.IssueOptions{CommonName: certname, DNSNames: []string{"Puppet.Example.net"}})
	h.Config = gather.Config{
		Certname: certname, Cert: h.write("cert.pem", h.id.CertPEM), Key: h.write("key.pem", h.id.KeyPEM),
		Authority: h.write("ca.pem", ca.PEM()), CRL: h.path("crl.pem"),
		Timeout: 5 * time.Second, // what is in time here must be so on a busy machine
	}
	h.setCRL()
	return h
}

func (h *host) issue(o stub.IssueOptions) *stub.Identity {
	h.t.Helper()
	id, err := h.ca.Issue(o)
	if err != nil {
		h.t.Fatal(err)
	}
	return id
}

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

// write replaces a file by rename, as agents do.
func (h *host) write(name string, data []byte) string {
	h.t.Helper()
	path := h.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		h.t.Fatal(err)
	}
	return path
}

func (h *host) setCRL() {
	h.t.Helper()
	crl, err := h.ca.CRL()
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("crl.pem", crl)
}

func (h *host) gatherer() *gather.Gatherer {
	g := gather.New(h.Config)
	h.t.Cleanup(g.Close)
	return g
}

// service is a fake puppetserver or PuppetDB: real TLS, and whatever answers are set.
type service struct {
	url      string
	requests atomic.Int64 // of all paths
	conns    atomic.Int64
	client   atomic.Pointer[string] // certname of who asked last

	mu      sync.Mutex
	answers map[string]http.HandlerFunc // by path
	count   map[string]int
}

// newService answers 404 to all at first. A client certificate is asked for and not
// required, as puppetserver does.
func (h *host) newService(id *stub.Identity) *service {
	h.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.ca.PEM())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	s := &service{answers: make(map[string]http.HandlerFunc), count: make(map[string]int)}
	s.url = "https://" + l.Addr().String()
	server := &http.Server{
		Handler: s, ErrorLog: log.New(io.Discard, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.conns.Add(1)
			}
		},
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{id.Certificate}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool},
	}
	var done sync.WaitGroup
	done.Go(func() { server.ServeTLS(l, "", "") })
	h.t.Cleanup(func() {
		server.Close()
		done.Wait()
	})
	return s
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	name := ""
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	s.client.Store(&name)
	s.mu.Lock()
	answer := s.answers[r.URL.RequestURI()]
	s.count[r.URL.RequestURI()]++
	s.mu.Unlock()
	if answer == nil {
		http.NotFound(w, r)
		return
	}
	answer(w, r)
}

func (s *service) on(uri string, answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[uri] = answer
}

func (s *service) asked(uri string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[uri]
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
}

// hangs answers nothing until the client goes, as a process under SIGSTOP.
func hangs(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }

const (
	simple   = "/status/v1/simple"
	simpleCA = "/status/v1/simple/ca"
	jrubies  = "/status/v1/services/jruby-metrics?level=debug"
	deep     = "/puppet/v3/node/" + certname + "?environment=production"
	pdb      = "/status/v1/services/puppetdb-status"
)

// puppetserver is a fake one that is well.
func (h *host) puppetserver() *service {
	s := h.newService(h.id)
	s.on(simple, says(200, "running"))
	s.on(jrubies, says(200, metricsOf(4, 4)))
	s.on(deep, says(200, `{"name":"m1.example.net"}`))
	h.Puppetserver = s.url
	return s
}

func metricsOf(all, free int) string {
	return fmt.Sprintf(`{"service_version":"7.9.5","service_status_version":1,"detail_level":"debug","state":"running",
		"status":{"experimental":{"jruby-pool-lock-status":{"current-state":"not-in-use"},
		"metrics":{"average-free-jrubies":3.9,"num-free-jrubies":%d,"num-jrubies":%d,"borrowed-instances":[]}}},"active_alerts":[]}`, free, all)
}

// until looks until something holds.
func until(t testing.TB, g *gather.Gatherer, what string, holds func(evidence.Evidence) bool) evidence.Evidence {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		e := g.Look(context.Background())
		if holds(e) {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: never seen; last %+v", what, e)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
