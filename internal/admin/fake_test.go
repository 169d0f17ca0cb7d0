package admin_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is for servers of net/http whose complaints are expected.
var quiet = log.New(io.Discard, "", 0)

// patience is for what must happen; nothing waits as long if it does.
const patience = 20 * time.Second

// backend is a Backend in memory.
type backend struct {
	status  admin.Status
	masters []admin.Master
	zones   []admin.Zone
	history []admin.Write
	result  admin.Result
	keys    admin.Keys
	plan    admin.Plan
	rejoin  admin.Rejoin
	// err is what writes end with; before that they call wait.
	err  error
	wait func(context.Context) error

	mu      sync.Mutex
	calls   []string // of writes, with who and what
	events  []admin.Event
	readers map[int]func(admin.Event)
	next    int
	turns   chan struct{} // gets a value when a reader comes or goes
}

func newBackend() *backend {
	return &backend{readers: make(map[int]func(admin.Event)), turns: make(chan struct{}, 1000)}
}

func (b *backend) Status() admin.Status    { return b.status }
func (b *backend) Masters() []admin.Master { return b.masters }
func (b *backend) Master(host string) (admin.Master, error) {
	b.called("master %s", host)
	if len(b.masters) > 0 {
		return b.masters[0], b.err
	}
	return admin.Master{Host: host}, b.err
}
func (b *backend) Plan(kind admin.Kind, to string) (admin.Plan, error) {
	b.called("plan %s %s", kind, to)
	return b.plan, b.err
}
func (b *backend) Zones() []admin.Zone              { return b.zones }
func (b *backend) Camaster() admin.Camaster         { return b.status.Camaster }
func (b *backend) History(key string) []admin.Write { b.called("history %s", key); return b.history }
func (b *backend) Cluster() admin.Cluster           { return admin.Cluster{Node: b.status.Node} }

func (b *backend) called(format string, v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls = append(b.calls, fmt.Sprintf(format, v...))
}

// last is the last call.
func (b *backend) last() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.calls) == 0 {
		return ""
	}
	return b.calls[len(b.calls)-1]
}

func (b *backend) write(ctx context.Context, format string, v ...any) (admin.Result, error) {
	b.called(format, v...)
	if b.wait != nil {
		if err := b.wait(ctx); err != nil {
			return admin.Result{}, err
		}
	}
	return b.result, b.err
}

func (b *backend) SetCamaster(ctx context.Context, actor string, s admin.SetCamaster) (admin.Result, error) {
	return b.write(ctx, "%s: camaster %+v", actor, s)
}

func (b *backend) Drain(ctx context.Context, actor, host string, s admin.SetDrain) (admin.Result, error) {
	return b.write(ctx, "%s: drain %s %+v", actor, host, s)
}

func (b *backend) Undrain(ctx context.Context, actor, host, reason string) (admin.Result, error) {
	return b.write(ctx, "%s: undrain %s %q", actor, host, reason)
}

func (b *backend) Rejoin(ctx context.Context, actor, host string) (admin.Rejoin, error) {
	_, err := b.write(ctx, "%s: rejoin %s", actor, host)
	return b.rejoin, err
}

func (b *backend) Keys(context.Context) (admin.Keys, error) { return b.keys, b.err }

func (b *backend) AddKey(ctx context.Context, actor string) (admin.KeyResult, error) {
	_, err := b.write(ctx, "%s: add key", actor)
	return admin.KeyResult{ID: "0123abcd"}, err
}

func (b *backend) UseKey(ctx context.Context, actor, id string) (admin.KeyResult, error) {
	_, err := b.write(ctx, "%s: use key %s", actor, id)
	return admin.KeyResult{ID: id}, err
}

func (b *backend) RemoveKey(ctx context.Context, actor, id string) (admin.KeyResult, error) {
	_, err := b.write(ctx, "%s: remove key %s", actor, id)
	return admin.KeyResult{ID: id}, err
}

func (b *backend) Events(after uint64, f func(admin.Event)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.events {
		if e.ID > after {
			f(e)
		}
	}
	id := b.next
	b.next++
	b.readers[id] = f
	b.turns <- struct{}{}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.readers, id)
		b.turns <- struct{}{}
	}
}

// turn waits until a reader comes or goes.
func (b *backend) turn(t *testing.T) {
	t.Helper()
	select {
	case <-b.turns:
	case <-time.After(patience):
		t.Fatal("no event reader came or went")
	}
}

// emit is false when nobody reads.
func (b *backend) emit(e admin.Event) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
	for _, f := range b.readers {
		f(e)
	}
	return len(b.readers) > 0
}

// journal is a Logger that tests read.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(level, format string, v ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, level+" "+fmt.Sprintf(format, v...))
}

func (j *journal) Infof(format string, v ...any)    { j.add("INFO", format, v...) }
func (j *journal) Warningf(format string, v ...any) { j.add("WARNING", format, v...) }
func (j *journal) Errorf(format string, v ...any)   { j.add("ERROR", format, v...) }

// with are the lines that have a text in them.
func (j *journal) with(text string) []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var lines []string
	for _, l := range j.lines {
		if strings.Contains(l, text) {
			lines = append(lines, l)
		}
	}
	return lines
}

// site is a Puppet CA with a server of it on both kinds of address.
type site struct {
	t         *testing.T
	ca        *stub.CA
	dir       string // short enough for a socket
	authority *trust.Authority
	backend   *backend
	journal   *journal
	server    *admin.Server
	unix, url string // what clients are given
}

// newSite starts a server; change may adapt its configuration.
func newSite(t *testing.T, change func(*site, *admin.Config)) *site {
	t.Helper()
	dir, err := os.MkdirTemp("", "admin")
	fatal(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, dir: dir, backend: newBackend(), journal: new(journal)}
	s.ca, err = stub.NewCA("Puppet CA: puppet.example.net")
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(dir, "ca.pem"), s.ca.PEM(), 0o600))
	s.writeCRL()
	s.authority, err = trust.Open(filepath.Join(dir, "ca.pem"), filepath.Join(dir, "crl.pem"))
	fatal(t, err)
	s.unix = "unix://" + filepath.Join(dir, "run", "admin.sock")
	cfg := admin.Config{
		Addresses: []string{s.unix, "https://127.0.0.1:0"},
		Backend:   s.backend,
		Identity:  s.identity(stub.IssueOptions{CommonName: "ns1.example.net", DNSNames: []string{"localhost"}}),
		Authority: s.authority,
		Allow:     admin.Allow{Write: []string{"Ops.example.net"}, Read: []string{"monitor.example.net"}},
		Log:       s.journal,
		Limits:    admin.Limits{Reads: admin.Rate{PerSecond: 1e6, Burst: 1e6}, Writes: admin.Rate{PerSecond: 1e6, Burst: 1e6}},
	}
	if change != nil {
		change(s, &cfg)
	}
	s.server, err = admin.Listen(cfg)
	fatal(t, err)
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	for _, a := range s.server.Addresses() {
		if port, ok := strings.CutPrefix(a, "https://127.0.0.1:"); ok {
			s.url = "https://localhost:" + port // the name in the certificate
		}
	}
	return s
}

func (s *site) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return s.server.Close(ctx)
}

// writeCRL replaces the CRL as puppetserver does.
func (s *site) writeCRL() {
	s.t.Helper()
	crl, err := s.ca.CRL()
	fatal(s.t, err)
	fatal(s.t, os.WriteFile(filepath.Join(s.dir, "crl.new"), crl, 0o600))
	fatal(s.t, os.Rename(filepath.Join(s.dir, "crl.new"), filepath.Join(s.dir, "crl.pem")))
}

func (s *site) revoke(id *trust.Identity) {
	s.t.Helper()
	s.ca.Revoke(id.Leaf.SerialNumber)
	s.writeCRL()
}

func identityOf(t *testing.T, ca *stub.CA, o stub.IssueOptions) *trust.Identity {
	t.Helper()
	issued, err := ca.Issue(o)
	fatal(t, err)
	id, err := trust.NewIdentity(issued.Certificate)
	fatal(t, err)
	return id
}

func (s *site) identity(o stub.IssueOptions) *trust.Identity {
	s.t.Helper()
	return identityOf(s.t, s.ca, o)
}

func (s *site) named(name string) *trust.Identity {
	s.t.Helper()
	return s.identity(stub.IssueOptions{CommonName: name})
}

// client is one of the package's, over https with an identity, or over the socket.
func (s *site) client(id *trust.Identity) *admin.Client {
	s.t.Helper()
	return s.clientOf(s.url, admin.ClientOptions{Identity: id, Authority: s.authority, Timeout: patience})
}

func (s *site) local() *admin.Client {
	s.t.Helper()
	return s.clientOf(s.unix, admin.ClientOptions{Timeout: patience})
}

func (s *site) clientOf(server string, o admin.ClientOptions) *admin.Client {
	s.t.Helper()
	c, err := admin.NewClient(server, o)
	fatal(s.t, err)
	s.t.Cleanup(c.Close)
	return c
}

// raw is an HTTP client that can do what the package's does not.
func (s *site) raw(id *trust.Identity, http2 bool) *http.Client {
	config := &tls.Config{RootCAs: s.ca.Pool()}
	if id != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.Certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: http2}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// answer is a response that was read whole.
type answer struct {
	*http.Response
	body string
}

func (s *site) do(c *http.Client, method, path, body string, header ...string) answer {
	s.t.Helper()
	var reader io.Reader
	if body != "" {
		reader = strings.NewReader(body)
	}
	r, err := http.NewRequest(method, s.url+path, reader)
	fatal(s.t, err)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := c.Do(r)
	fatal(s.t, err)
	defer response.Body.Close()
	if response.Header.Get("Content-Type") == "text/event-stream" {
		return answer{response, ""}
	}
	data, err := io.ReadAll(response.Body)
	fatal(s.t, err)
	return answer{response, string(data)}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantFault wants a fault with a status, a type, and words in its detail.
func wantFault(t *testing.T, err error, status int, kind string, words ...string) {
	t.Helper()
	var f *admin.Fault
	if !errors.As(err, &f) {
		t.Errorf("got %v, want a fault of type %s", err, kind)
		return
	}
	if f.Status != status || f.Type != kind {
		t.Errorf("got %d %s (%s), want %d %s", f.Status, f.Type, f.Detail, status, kind)
	}
	for _, w := range words {
		if !strings.Contains(f.Detail, w) {
			t.Errorf("detail %q does not have %q", f.Detail, w)
		}
	}
}

// eventually asks until the answer is yes.
func eventually(t *testing.T, what string, yes func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for until := time.Now().Add(patience); !yes(); <-tick.C {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}
