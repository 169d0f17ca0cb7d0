package gather_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/evidence/gather"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

var yes = true

func TestPuppetserverThatIsWell(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	s.on(simpleCA, says(200, "running"))
	g := h.gatherer()
	for range 5 {
		got := g.Look(context.Background()).Puppetserver
		want := evidence.Puppetserver{State: "running", CAService: true, Compiles: &yes, JRubies: 4, JRubiesFree: 4}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for 5 looks, which follow each other: they are kept", n)
	}
	if who := *s.client.Load(); who != certname {
		t.Errorf("it shows the certificate of %q", who)
	}
	if n := s.asked(deep); n != 1 {
		t.Errorf("%d deep checks in 5 looks", n)
	}
}

func TestPuppetserverByItsAnswers(t *testing.T) {
	big := strings.Repeat("x", 5<<20)
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   evidence.Puppetserver
	}{
		{"stopping", says(503, "stopping"), evidence.Puppetserver{State: "stopping"}},
		{"starting", says(503, "starting\n"), evidence.Puppetserver{State: "starting"}},
		{"error", says(503, "error"), evidence.Puppetserver{State: "error"}},
		{"running that is refused", says(503, "running"), evidence.Puppetserver{State: "unknown", Detail: `its status service answers HTTP 503 "running"`}},
		{"another service", says(404, "not here\x01\nreally"), evidence.Puppetserver{State: "unknown", Detail: `its status service answers HTTP 404 "not here? really"`}},
		{"garbage", says(200, strings.Repeat("<html> ", 1000)), evidence.Puppetserver{State: "unknown", Detail: `its status service answers HTTP 200 "` + strings.Repeat("<html> ", 17) + `<..."`}},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://elsewhere.example.net/", http.StatusFound)
		}, evidence.Puppetserver{State: "unknown", Detail: `its status service answers HTTP 302 "<a href=\"https://elsewhere.example.net/\">Found</a>."`}},
		{"oversize", says(200, big), evidence.Puppetserver{State: "unreachable", Detail: "an answer of more than 4194304 bytes"}},
		{"cut", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("run"))
		}, evidence.Puppetserver{State: "unreachable", Detail: "the connection ended"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t)
			s := h.puppetserver()
			s.on(simple, c.answer)
			s.on(simpleCA, says(200, "running"))
			got := h.gatherer().Look(context.Background()).Puppetserver
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			if s.asked(deep) != 0 {
				t.Error("a deep check of one that does not run")
			}
		})
	}
}

func TestPuppetserverThatIsNotThere(t *testing.T) {
	h := newHost(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.Puppetserver = "https://" + l.Addr().String()
	l.Close()
	want := evidence.Puppetserver{State: "unreachable", Detail: "connection refused"}
	if diff := cmp.Diff(want, h.gatherer().Look(context.Background()).Puppetserver); diff != "" {
		t.Error(diff)
	}
}

// Whoever has the port and another host's certificate is not this host's puppetserver.
func TestPuppetserverWithAnotherCertificate(t *testing.T) {
	other, err := stub.NewCA("another CA")
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Issue(stub.IssueOptions{CommonName: certname})
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t)
	for _, c := range []struct {
		name, want string
		id         *stub.Identity
	}{
		{"another name", "x509: certificate is valid for m2.example.net, not m1.example.net", h.issue(stub.IssueOptions{CommonName: "m2.example.net"})},
		{"another CA", "x509: certificate signed by unknown authority", foreign},
	} {
		h.Puppetserver = h.newService(c.id).url
		got := h.gatherer().Look(context.Background()).Puppetserver
		if got.State != "unreachable" || !strings.Contains(got.Detail, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestCAService(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   evidence.Puppetserver
	}{
		{"off", says(404, "not found: ca"), evidence.Puppetserver{State: "running"}},
		{"on", says(200, "running"), evidence.Puppetserver{State: "running", CAService: true}},
		{"failing", says(503, "error"), evidence.Puppetserver{State: "running", Detail: "its CA service: HTTP 503 error"}},
	} {
		h := newHost(t)
		s := h.puppetserver()
		s.on(simpleCA, c.answer)
		s.on(jrubies, nil)
		got := h.gatherer().Look(context.Background()).Puppetserver
		got.Compiles = nil
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestDeepCheck(t *testing.T) {
	h := newHost(t)
	h.DeepEvery = time.Hour
	h.Environments = h.path("environments")
	h.write("environments/production/REVISION", []byte("one"))
	s := h.puppetserver()
	g := h.gatherer()
	compiles := func(want bool) func(evidence.Evidence) bool {
		return func(e evidence.Evidence) bool {
			return e.Puppetserver.Compiles != nil && *e.Puppetserver.Compiles == want
		}
	}
	until(t, g, "the first check", compiles(true))

	s.on(deep, says(500, "Server Error: Evaluation Error: Syntax error at '}'"))
	if e := g.Look(context.Background()); !*e.Puppetserver.Compiles || s.asked(deep) != 1 {
		t.Fatalf("checked again before its time: %+v", e.Puppetserver)
	}
	h.write("environments/production/REVISION", []byte("two"))
	e := until(t, g, "a check after a deployment", compiles(false))
	if want := "HTTP 500 Server Error: Evaluation Error: Syntax error at '}'"; e.Puppetserver.CompileDetail != want {
		t.Errorf("%q", e.Puppetserver.CompileDetail)
	}

	// A restart: nothing is known of the new process until it was tried.
	s.on(simple, says(503, "stopping"))
	if e := g.Look(context.Background()); e.Puppetserver.Compiles != nil || e.Puppetserver.CompileDetail != "" {
		t.Errorf("one that does not run: %+v", e.Puppetserver)
	}
	s.on(deep, says(200, "{}"))
	s.on(simple, says(200, "running"))
	if e := g.Look(context.Background()); e.Puppetserver.Compiles == nil || !*e.Puppetserver.Compiles {
		t.Errorf("after a restart: %+v", e.Puppetserver)
	}
}

// A check that failed is made again soon, and any check after a while.
func TestDeepCheckIsRepeated(t *testing.T) {
	h := newHost(t)
	h.DeepEvery = 20 * time.Millisecond
	s := h.puppetserver()
	g := h.gatherer()
	until(t, g, "a third check", func(evidence.Evidence) bool { return s.asked(deep) >= 3 })
}

// A PuppetDB that does not answer is no fault of this host's: when the camaster is lost all
// masters say so, and the next one must not be refused for it.
func TestDeepCheckWithoutPuppetDB(t *testing.T) {
	h := newHost(t)
	h.DeepEvery = 20 * time.Millisecond
	s := h.puppetserver()
	s.on(deep, says(500, "Server Error: Could not retrieve facts for m1.example.net: Failed to find facts from PuppetDB at  Failed to execute '/pdb/query/v4/nodes/m1.example.net/facts' on at least 1 of the following 'server_urls': https://puppet-camaster.example.net:8081"))
	g := h.gatherer()
	e := until(t, g, "the check", func(e evidence.Evidence) bool { return e.Puppetserver.CompileDetail != "" })
	if p := e.Puppetserver; p.Compiles != nil || !strings.HasPrefix(p.CompileDetail, "a node request fails for want of PuppetDB: HTTP 500 ") || e.Unfit(time.Now()) != "" {
		t.Errorf("%+v; unfit: %q", p, e.Unfit(time.Now()))
	}
	s.on(deep, says(500, "Server Error: Evaluation Error"))
	e = until(t, g, "another fault", func(e evidence.Evidence) bool { return e.Puppetserver.Compiles != nil })
	if *e.Puppetserver.Compiles || e.Unfit(time.Now()) == "" {
		t.Errorf("%+v", e.Puppetserver)
	}
}

// Nor says one that is not answered in time that this host is at fault: a silent PuppetDB
// holds its JRubies.
func TestDeepCheckInVain(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	s.on(deep, hangs)
	e := until(t, h.gatherer(), "its end", func(e evidence.Evidence) bool { return e.Puppetserver.CompileDetail != "" })
	if p := e.Puppetserver; p.Compiles != nil || !strings.HasPrefix(p.CompileDetail, "a node request is not answered in 10s: ") || e.Unfit(time.Now()) != "" {
		t.Errorf("%+v; unfit: %q", p, e.Unfit(time.Now()))
	}
}

// A slow one holds up the look that began it, for as long as a look may take, and no other.
func TestDeepCheckThatHangs(t *testing.T) {
	h := newHost(t)
	h.Timeout = 300 * time.Millisecond
	s := h.puppetserver()
	release := make(chan struct{})
	s.on(deep, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	g := h.gatherer()
	until(t, g, "its state", func(e evidence.Evidence) bool { return e.Puppetserver.State == "running" && s.asked(deep) == 1 })
	began := time.Now()
	for range 5 {
		if e := g.Look(context.Background()); e.Puppetserver.Compiles != nil {
			t.Fatalf("%+v", e.Puppetserver)
		}
	}
	if d := time.Since(began); d > 5*h.Timeout {
		t.Errorf("5 looks took %s", d)
	}
	close(release)
	until(t, g, "its end", func(e evidence.Evidence) bool { return e.Puppetserver.Compiles != nil && *e.Puppetserver.Compiles })
	if n := s.asked(deep); n != 1 {
		t.Errorf("%d checks at once", n)
	}
	// What the last process could says nothing of the next one.
	s.on(simple, says(503, "stopping"))
	g.Look(context.Background())
	s.on(deep, hangs)
	s.on(simple, says(200, "running"))
	e := until(t, g, "the next process", func(e evidence.Evidence) bool { return e.Puppetserver.State == "running" })
	if e.Puppetserver.Compiles != nil {
		t.Errorf("known before it was tried: %+v", e.Puppetserver)
	}
}

func TestNoCertificate(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	os.Remove(h.Cert)
	g := h.gatherer()
	got := g.Look(context.Background())
	if p := got.Puppetserver; p.State != "running" || p.Compiles != nil || !strings.HasPrefix(p.CompileDetail, "not tried: the host's certificate: open ") {
		t.Errorf("%+v", p)
	}
	if !strings.Contains(got.Certificate.Error, "no such file") {
		t.Errorf("%+v", got.Certificate)
	}
	if *s.client.Load() != "" {
		t.Error("it shows a certificate")
	}
	// The agent has got one: it is used with no restart.
	h.write("cert.pem", h.id.CertPEM)
	until(t, g, "the new certificate", func(e evidence.Evidence) bool { return e.Puppetserver.Compiles != nil && e.Certificate.Error == "" })

	os.Remove(h.Authority)
	if p := g.Look(context.Background()).Puppetserver; p.State != "unreachable" || !strings.Contains(p.Detail, "the CA's certificates") {
		t.Errorf("without a CA: %+v", p)
	}
	h.write("ca.pem", []byte("nothing"))
	if p := g.Look(context.Background()).Puppetserver; !strings.Contains(p.Detail, "there is none in") {
		t.Errorf("with an empty CA: %+v", p)
	}
}

// Load that comes and goes with each request does not change a report.
func TestJRubiesAreCalm(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	g := h.gatherer()
	told := func(free int) int {
		s.on(jrubies, says(200, metricsOf(8, free)))
		return g.Look(context.Background()).Puppetserver.JRubiesFree
	}
	if n := told(8); n != 8 {
		t.Fatalf("first %d", n)
	}
	for i := range 20 {
		if n := told(8 - i%2); n != 8 {
			t.Fatalf("with one request now and then: %d", n)
		}
	}
	n := 8
	for range 20 {
		n = told(0)
	}
	if n != 0 {
		t.Errorf("with all busy for long: %d free", n)
	}
	for range 20 {
		n = told(8)
	}
	if n != 8 {
		t.Errorf("idle again: %d free", n)
	}
	for _, body := range []string{"", "[]", `{"status":{}}`, metricsOf(0, 0), metricsOf(4, 5), metricsOf(-4, -5), metricsOf(1e9, 1), strings.Repeat("[", 100000)} {
		s.on(jrubies, says(200, body))
		if p := g.Look(context.Background()).Puppetserver; p.JRubies != 0 || p.JRubiesFree != 0 || p.State != "running" {
			t.Errorf("%.40s: %+v", body, p)
		}
	}
}

// One that hangs costs a look its time once, and holds up nothing else.
func TestWhatHangsHangsAlone(t *testing.T) {
	h := newHost(t)
	s := h.puppetserver()
	s.on(simple, hangs)
	d := h.newService(h.id)
	d.on(simple, says(200, "running"))
	d.on(pdb, says(200, `{"state":"running","status":{"queue_depth":7,"write_db_up?":true,"read_db_up?":true,"maintenance_mode?":false}}`))
	h.PuppetDB, h.PuppetDBMode = d.url, "hot"
	h.Timeout = 2 * time.Second
	release := make(chan struct{})
	calls := 0
	set := &evidence.CA{Mode: "hot", Hash: "abc"}
	h.CA = func(context.Context) *evidence.CA { // heeds no context, as a file system
		calls++
		if calls > 1 {
			<-release
		}
		return set
	}
	g := h.gatherer()
	e := g.Look(context.Background())
	if e.Puppetserver.State != "unreachable" || e.Puppetserver.Detail != "no answer in time" && !strings.HasPrefix(e.Puppetserver.Detail, "a look that began") {
		t.Errorf("%+v", e.Puppetserver)
	}
	if want := (evidence.PuppetDB{Mode: "hot", State: "running", Writes: true, Queue: 7}); *e.PuppetDB != want {
		t.Errorf("%+v", e.PuppetDB)
	}
	if e.CA.Error != "" || e.CA.Hash != "abc" {
		t.Errorf("%+v", e.CA)
	}
	s.on(simple, says(200, "running"))
	e = until(t, g, "the CA's error", func(e evidence.Evidence) bool { return e.CA.Error != "" })
	if !strings.HasPrefix(e.CA.Error, "a look that began at ") || e.CA.Hash != "abc" {
		t.Errorf("what was known stays, with the error: %+v", e.CA)
	}
	began := time.Now()
	for range 10 {
		g.Look(context.Background())
	}
	if took := time.Since(began); took > 5*h.Timeout {
		t.Errorf("10 looks with one part that hangs took %s", took)
	}
	if e.CA.Error != g.Look(context.Background()).CA.Error {
		t.Error("the same error has another text")
	}
	close(release)
	until(t, g, "the CA's end", func(e evidence.Evidence) bool { return e.CA.Error == "" })
	if e.CA.Error == "" || set.Error != "" {
		t.Error("evidence that was handed out, or taken, has changed")
	}
}

func TestACanceledLookReturns(t *testing.T) {
	h := newHost(t)
	h.Timeout = time.Hour
	h.puppetserver().on(simple, hangs)
	g := h.gatherer()
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if p := g.Look(ctx).Puppetserver; p.State != "unreachable" {
		t.Errorf("%+v", p)
	}
	g.Close()
	if e, at := g.Last(); at.IsZero() || e.Puppetserver.State != "unreachable" {
		t.Errorf("%+v at %s", e, at)
	}
	g.Look(context.Background()) // must not hang
}

func TestNothingToLookAt(t *testing.T) {
	g := gather.New(gather.Config{})
	defer g.Close()
	if diff := cmp.Diff(evidence.Evidence{}, g.Look(context.Background())); diff != "" {
		t.Error(diff)
	}
}
