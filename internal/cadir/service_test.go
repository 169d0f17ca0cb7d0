package cadir_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/role"
)

// apply makes a service what it is to be, as the controller does.
func apply(t *testing.T, s role.Service, to role.State) (names []string) {
	t.Helper()
	names, err := tryApply(t, s, to)
	must(t, err)
	return names
}

func tryApply(t *testing.T, s role.Service, to role.State) (names []string, err error) {
	t.Helper()
	steps, err := s.Plan(s.Observe(t.Context()), to)
	if err != nil {
		return nil, err
	}
	for _, step := range steps {
		names = append(names, step.Name)
		ctx, cancel := context.WithTimeout(t.Context(), step.Timeout)
		_, err := step.Run(ctx)
		cancel()
		if err != nil {
			return names, err
		}
	}
	if o := s.Observe(t.Context()); o.State != to {
		t.Errorf("after all steps it is %s (%s), not %s", o.State, o.Detail, to)
	}
	if steps, err := s.Plan(s.Observe(t.Context()), to); err != nil || len(steps) > 0 {
		t.Errorf("after all steps there are more: %v, %v", steps, err)
	}
	return names, nil
}

func is(t *testing.T, s role.Service, want role.State) {
	t.Helper()
	if o := s.Observe(t.Context()); o.State != want {
		t.Errorf("it is %s (%s), want %s", o.State, o.Detail, want)
	}
}

func TestHotService(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	var version, rejoining = "1.1.ns1", false
	service := func(d *cadir.Dir) role.Service {
		s, err := cadir.NewService(cadir.ServiceConfig{Dir: d, Stamp: func() string { return version }, Rejoining: func() bool { return rejoining }})
		must(t, err)
		return s
	}
	m1 := service(p.from)
	is(t, m1, role.Open)
	apply(t, m1, role.Closed)
	is(t, service(open(t, p.Dir)), role.Closed) // it was open: what is there is its own
	if _, err := p.TrySign("x"); err == nil {
		t.Fatal("it signs")
	}
	if names := apply(t, m1, role.Open); strings.Join(names, ", ") != "verify the CA, move the serial, unseal the CA" {
		t.Error(names)
	}
	if n := p.Sign(t, "x.example.net"); n != 4+1000 {
		t.Errorf("signed as %d", n)
	}
	apply(t, m1, role.Closed)
	apply(t, m1, role.Open)
	if n := p.Sign(t, "y.example.net"); n != 5+1000 {
		t.Errorf("the serial was moved for the same version: %d", n)
	}

	// A standby that has nothing yet is one, and cannot be opened.
	p.to = open(t, p.path)
	m3 := service(p.to)
	is(t, m3, role.Standby)
	if _, err := tryApply(t, m3, role.Open); err == nil || !strings.Contains(err.Error(), "the CA is not opened: cadir") || !strings.Contains(err.Error(), "ca_key.pem") {
		t.Errorf("an empty cadir: %v", err)
	}
	apply(t, m3, role.Standby)
	p.sync(t)
	is(t, service(open(t, p.path)), role.Standby) // a copy, after a restart too
	must(t, os.Rename(filepath.Join(p.path, "ca_key.pem"), filepath.Join(p.path, "x")))
	if _, err := tryApply(t, m3, role.Open); err == nil || !strings.Contains(err.Error(), "incomplete: ca_key.pem missing") {
		t.Errorf("a partial cadir: %v", err)
	}
	must(t, os.Rename(filepath.Join(p.path, "x"), filepath.Join(p.path, "ca_key.pem")))

	// It fails over, and what the old one signed meanwhile is in no one's way.
	lost := p.Sign(t, "lost.example.net")
	version = "2.1.ns1"
	apply(t, m3, role.Open)
	if p.to.Following() {
		t.Error("an open CA follows")
	}
	own := *p.CA
	own.Dir = p.path
	if n := own.Sign(t, "new.example.net"); n != lost+1000 {
		t.Errorf("signed as %d", n)
	}
	is(t, service(open(t, p.path)), role.Open)

	// The old one comes back, follows, is refused, and rejoins.
	apply(t, m1, role.Closed)
	back := &pair{site: site{&own, p.path}, from: p.to, path: p.Dir, to: p.from}
	apply(t, m1, role.Standby)
	set := back.fetch(t)
	_, err := back.to.Replace(t.Context(), set.Files, set.Hash)
	var ahead *cadir.AheadError
	if !errors.As(err, &ahead) {
		t.Fatalf("%v", err)
	}
	p.from.NoteSync("m3.example.net", err)
	if e := p.from.Evidence(t.Context()); e.Source != "m3.example.net" || !strings.Contains(e.Error, "lost.example.net") {
		t.Errorf("%+v", e)
	}
	rejoining = true
	done := make(chan struct{})
	go func() { // the puller
		defer close(done)
		for !errors.Is(err, nil) && t.Context().Err() == nil {
			if _, err = back.to.Replace(t.Context(), set.Files, set.Hash); err != nil {
				time.Sleep(time.Millisecond)
			}
		}
		p.from.NoteSync("m3.example.net", nil)
	}()
	steps, err2 := m1.Plan(m1.Observe(t.Context()), role.Standby)
	must(t, err2)
	if len(steps) != 1 || steps[0].Name != "take over the camaster's CA" {
		t.Fatalf("%+v", steps)
	}
	if _, err := steps[0].Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-done
	back.equal(t)
	is(t, m1, role.Standby)
	if steps, err := m1.Plan(m1.Observe(t.Context()), role.Standby); err != nil || len(steps) > 0 {
		t.Errorf("%v, %v", steps, err)
	}
}

// A sealed CA that could not be verified to its end is opened once it can.
func TestOpenFinishesVerifying(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	must(t, open(t, s.path).Seal(t.Context()))
	d := open(t, s.path)
	service, err := cadir.NewService(cadir.ServiceConfig{Dir: d, Stamp: func() string { return "1.1.ns1" }})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o := service.Observe(ctx)
	if o.State != role.Closed || !o.Facts.(cadir.Facts).Unfinished {
		t.Errorf("%+v", o)
	}
	if steps, err := service.Plan(o, role.Open); err != nil || len(steps) != 3 {
		t.Errorf("%v, %v", steps, err)
	}
}

// puppetserver is one that reads ca.cfg when it is started, as the real one does.
type puppetserver struct {
	config string
	loaded string
	down   atomic.Bool
	*httptest.Server
}

func newPuppetserver(t *testing.T, content string) *puppetserver {
	dir := t.TempDir()
	p := &puppetserver{config: filepath.Join(dir, "ca.cfg"), loaded: filepath.Join(dir, "loaded")}
	must(t, os.WriteFile(p.config, []byte(content), 0o640))
	must(t, os.WriteFile(p.loaded, []byte(content), 0o640))
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile(p.loaded)
		switch {
		case p.down.Load() || err != nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		case strings.Contains("\n"+string(data), "\n"+serviceOn+"\n"):
			w.Write([]byte("running"))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

const (
	serviceOn    = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service"
	serviceOff   = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service"
	serviceWatch = "puppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service"
)

// packaged is the file as the packages have it.
const packaged = "# To enable the CA service, leave the following line uncommented\n" + serviceOn + "\n" +
	"# To disable the CA service, comment out the above line and uncomment the line below\n#" + serviceOff + "\n" +
	serviceWatch + "\n"

func TestSwitchedService(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d, err := cadir.Open(s.path, cadir.Options{Mode: cadir.ModeService})
	must(t, err)
	server := newPuppetserver(t, packaged)
	config := cadir.ServiceConfig{
		Dir: d, Stamp: func() string { return "1.1.ns1" }, Config: server.config,
		Restart: role.Command{"cp", server.config, server.loaded}, StatusURL: server.URL + "/status/v1/simple/ca", Client: server.Client(),
	}
	service, err := cadir.NewService(config)
	must(t, err)
	is(t, service, role.Open)
	if names := apply(t, service, role.Closed); strings.Join(names, ", ") != "seal the CA, switch the CA service off, restart puppetserver, wait for puppetserver" {
		t.Error(names)
	}
	data, err := os.ReadFile(server.config)
	must(t, err)
	want := strings.Replace(strings.Replace(packaged, serviceOn, "#"+serviceOn, 1), "#"+serviceOff, serviceOff, 1)
	if string(data) != want {
		t.Errorf("ca.cfg is\n%s\nwant\n%s", data, want)
	}
	if fi, _ := os.Stat(server.config); fi.Mode() != 0o640 {
		t.Error(fi.Mode())
	}
	if !sealedNow(t, d) {
		t.Error("it is not sealed")
	}
	if names := apply(t, service, role.Open); len(names) != 6 {
		t.Error(names)
	}
	if data, _ := os.ReadFile(server.config); string(data) != packaged {
		t.Errorf("ca.cfg is\n%s\nwant\n%s", data, packaged)
	}
	// Killed between the seal and the switch: it is not closed yet, and goes on there.
	must(t, d.Seal(t.Context()))
	is(t, service, role.Unknown)
	apply(t, service, role.Closed)
	must(t, d.Unseal(t.Context()))
	is(t, service, role.Unknown)
	apply(t, service, role.Closed)

	// What is lost while it is being opened is seen before puppetserver is started: it
	// would make a new CA.
	steps, err := service.Plan(service.Observe(t.Context()), role.Open)
	must(t, err)
	must(t, os.Rename(s.Path("ca_key.pem"), s.Path("x")))
	for _, step := range steps {
		if step.Name == "switch the CA service on" {
			if _, err := step.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "ca_key.pem missing") {
				t.Error(err)
			}
		}
	}
	if data, _ := os.ReadFile(server.config); string(data) != want {
		t.Error("ca.cfg was written")
	}
	must(t, os.Rename(s.Path("x"), s.Path("ca_key.pem")))

	// With a CA that is not whole, the service is not even switched on.
	must(t, os.Remove(s.Path("serial")))
	if _, err := tryApply(t, service, role.Open); err == nil || !strings.Contains(err.Error(), "serial missing") {
		t.Error(err)
	}
	if data, _ := os.ReadFile(server.config); string(data) != want {
		t.Error("ca.cfg was written")
	}
	// A puppetserver that does not come back does not hold it up for ever.
	server.down.Store(true)
	must(t, os.WriteFile(s.Path("serial"), []byte("0FFF"), 0))
	config.RestartTimeout = 300 * time.Millisecond
	service, err = cadir.NewService(config)
	must(t, err)
	if _, err := tryApply(t, service, role.Open); err == nil || !strings.Contains(err.Error(), "puppetserver answers 503") {
		t.Error(err)
	}

	for _, wrong := range []func(*cadir.ServiceConfig){
		func(c *cadir.ServiceConfig) { c.Config = "ca.cfg" },
		func(c *cadir.ServiceConfig) { c.Restart = nil },
		func(c *cadir.ServiceConfig) { c.StatusURL = "x" },
		func(c *cadir.ServiceConfig) { c.Dir = nil },
		func(c *cadir.ServiceConfig) { c.Gap = cadir.MaxSerial },
	} {
		c := config
		wrong(&c)
		if _, err := cadir.NewService(c); err == nil {
			t.Error("it is taken")
		}
	}
}

func TestSwitchConfig(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ from, on, off string }{
		"only a line":   {serviceOn + "\n", serviceOn + "\n", "#" + serviceOn + "\n" + serviceOff + "\n" + serviceWatch + "\n"},
		"no newline":    {serviceOn, serviceOn + "\n", "#" + serviceOn + "\n" + serviceOff + "\n" + serviceWatch + "\n"},
		"empty":         {"", serviceOn + "\n", serviceOff + "\n" + serviceWatch + "\n"},
		"both as notes": {"#" + serviceOn + "\n # " + serviceOff + "\nx/y\n", serviceOn + "\n # " + serviceOff + "\nx/y\n", "#" + serviceOn + "\n" + serviceOff + "\nx/y\n" + serviceWatch + "\n"},
		"off":           {"# a note\n" + serviceOff + "\n" + serviceWatch + "\n", "# a note\n#" + serviceOff + "\n" + serviceWatch + "\n" + serviceOn + "\n", "# a note\n" + serviceOff + "\n" + serviceWatch + "\n"},
	} {
		if got := string(cadir.Switched([]byte(c.from), true)); got != c.on {
			t.Errorf("%s, on:\n%swant\n%s", name, got, c.on)
		}
		if got := string(cadir.Switched([]byte(c.from), false)); got != c.off {
			t.Errorf("%s, off:\n%swant\n%s", name, got, c.off)
		}
		for _, on := range []bool{true, false} {
			once := cadir.Switched([]byte(c.from), on)
			if string(cadir.Switched(once, on)) != string(once) {
				t.Errorf("%s: twice is not once", name)
			}
		}
	}
}
