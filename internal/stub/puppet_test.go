package stub_test

import (
	"crypto/tls"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

func startWith(t *testing.T, ca *stub.CA, id *stub.Identity, options ...stub.MasterOption) *stub.Master {
	t.Helper()
	if id == nil {
		id = issue(t, ca, stub.IssueOptions{CommonName: name})
	}
	m, err := stub.NewMaster("127.0.0.1:0", id, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return m
}

// clientAs is a client with a certificate.
func clientAs(t *testing.T, ca *stub.CA, m *stub.Master, id *stub.Identity) *http.Client {
	t.Helper()
	c := client(t, ca, m)
	c.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{id.Certificate}
	return c
}

func write(t *testing.T, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits for what the master finds by looking.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// An agent's way to a certificate.
func TestCAService(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	m := startWith(t, ca, host, stub.WithCADir(d.Path()))
	c := client(t, ca, m)
	const path = "/puppet-ca/v1/"
	wantAnswer(t, c, "/status/v1/simple/ca", 200, "running")
	wantAnswer(t, c, path+"certificate/ca", 200, string(ca.PEM()))
	wantAnswer(t, c, path+"certificate_revocation_list/ca", 200, read(t, d, "ca_crl.pem"))
	wantAnswer(t, c, path+"certificate/m9.example.net", 404, "Could not find certificate m9.example.net")
	if code, body := do(t, c, "PUT", path+"certificate_request/m9.example.net", mustCSR(t, "m9.example.net")); code != 200 || body != "" {
		t.Errorf("PUT certificate_request: %d %q", code, body)
	}
	wantAnswer(t, c, path+"certificate/m9.example.net", 200, read(t, d, "signed/m9.example.net.pem"))

	serial := filepath.Join(d.Path(), "serial")
	if err := os.Chmod(serial, 0); err != nil {
		t.Fatal(err)
	}
	csr := mustCSR(t, "m8.example.net")
	code, body := do(t, c, "PUT", path+"certificate_request/m8.example.net", csr)
	if code != 500 || !strings.Contains(body, "java.io.FileNotFoundException: "+serial+" (Permission denied)") {
		t.Errorf("PUT certificate_request to a sealed CA: %d %q", code, body)
	}
	wantAnswer(t, c, path+"certificate/m8.example.net", 404, "Could not find certificate m8.example.net")
	wantAnswer(t, c, path+"certificate_request/m8.example.net", 200, string(csr))
	wantAnswer(t, c, "/status/v1/simple/ca", 200, "running") // a seal does not show
	if err := os.Chmod(serial, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, body := do(t, clientAs(t, ca, m, host), "PUT", path+"certificate_status/m8.example.net", []byte(`{"desired_state":"signed"}`)); code != 204 {
		t.Errorf("signing: %d %q", code, body)
	}
	wantAnswer(t, c, path+"certificate/m8.example.net", 200, read(t, d, "signed/m8.example.net.pem"))

	// Who may revoke, and what.
	revoke := []byte(`{"desired_state":"revoked"}`)
	for _, test := range []struct {
		name, path string
		c          *http.Client
		body       []byte
		code       int
	}{
		{"nobody", "m8.example.net", c, revoke, 403},
		{"an agent", "m8.example.net", clientAs(t, ca, m, agent), revoke, 403},
		{"the CA's host", "m8.example.net", clientAs(t, ca, m, host), revoke, 204},
		{"somebody unknown", "m7.example.net", clientAs(t, ca, m, host), revoke, 404},
		{"no state", "m8.example.net", clientAs(t, ca, m, host), []byte(`{}`), 400},
		{"no JSON", "m8.example.net", clientAs(t, ca, m, host), []byte(`revoke`), 400},
	} {
		if code, body := do(t, test.c, "PUT", path+"certificate_status/"+test.path, test.body); code != test.code {
			t.Errorf("revoking, %s: %d %q, want %d", test.name, code, body, test.code)
		}
	}
	if n := len(crl(t, d).RevokedCertificateEntries); n != 1 {
		t.Errorf("%d certificates are revoked, want 1", n)
	}
	if code, _ := do(t, clientAs(t, ca, m, host), "DELETE", path+"certificate_status/m8.example.net", nil); code != 204 {
		t.Errorf("cleaning: %d", code)
	}
	wantAnswer(t, c, path+"certificate/m8.example.net", 404, "Could not find certificate m8.example.net")
	if code, _ := do(t, c, "PUT", path+"certificate_request/m6.example.net", append(mustCSR(t, "m6.example.net"), make([]byte, 1<<20)...)); code != 400 {
		t.Errorf("a request of a megabyte: %d", code)
	}

	// What an agent has already is not sent again.
	r, _ := http.NewRequest("GET", "https://"+name+path+"certificate_revocation_list/ca", nil)
	r.Header.Set("If-Modified-Since", time.Now().Add(time.Minute).UTC().Format(http.TimeFormat))
	response, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusNotModified {
		t.Errorf("a CRL that is known: %d", response.StatusCode)
	}

	m.SetCA(false)
	wantAnswer(t, c, "/status/v1/simple/ca", 404, "not found: ca")
	wantAnswer(t, c, path+"certificate/ca", 404, "404 page not found\n")
}

// The files count from the next request on, whoever put them there.
func TestCADirFilledLater(t *testing.T) {
	d, ca, host, _ := newCADir(t)
	dir := filepath.Join(t.TempDir(), "standby")
	m := startWith(t, ca, host, stub.WithCADir(dir))
	c := client(t, ca, m)
	if code, body := do(t, c, "PUT", "/puppet-ca/v1/certificate_request/m9.example.net", mustCSR(t, "m9.example.net")); code != 500 || !strings.Contains(body, "No such file") {
		t.Errorf("without files: %d %q", code, body)
	}
	if err := os.Rename(d.Path(), dir); err != nil {
		t.Fatal(err)
	}
	if code, body := do(t, c, "PUT", "/puppet-ca/v1/certificate_request/m9.example.net", mustCSR(t, "m9.example.net")); code != 200 {
		t.Errorf("with files: %d %q", code, body)
	}
}

// With which files puppetserver starts.
func TestStart(t *testing.T) {
	const on = "puppetlabs.services.ca.certificate-authority-service/certificate-authority-service"
	const off = "puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service"
	const watch = "\npuppetlabs.trapperkeeper.services.watcher.filesystem-watch-service/filesystem-watch-service\n"
	for _, test := range []struct {
		name   string
		damage func(dir string) error
		caCfg  string
		code   int    // of /status/v1/simple/ca
		err    string // of the start
	}{
		{"enabled", nil, "# comment\n" + on + " # since 2019" + watch, 200, ""},
		{"disabled", nil, "#" + on + "\n" + off + watch, 404, ""},
		{"both", nil, on + "\n" + off, 0, "exactly one of"},
		{"neither", nil, watch, 0, "exactly one of"},
		{"sealed by the serial", func(dir string) error { return os.Chmod(dir+"/serial", 0) }, on, 200, ""},
		{"sealed by the key", func(dir string) error { return os.Chmod(dir+"/ca_key.pem", 0) }, on, 0, "ca_key.pem: permission denied"},
		{"a part of the files", func(dir string) error { return os.Remove(dir + "/inventory.txt") }, on, 0, "partial state"},
		{"a part of the files, disabled", func(dir string) error { return os.Remove(dir + "/inventory.txt") }, off, 404, ""},
		{"no files", os.RemoveAll, on, 200, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d, ca, host, _ := newCADir(t)
			if test.damage != nil {
				if err := test.damage(d.Path()); err != nil {
					t.Fatal(err)
				}
			}
			cfg := write(t, []byte(test.caCfg))
			m, err := stub.NewMaster("127.0.0.1:0", host, stub.WithCADir(d.Path()), stub.WithCACfg(cfg))
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Errorf("%v, want %q", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			c := client(t, ca, m)
			// It is read at the start alone.
			if err := os.WriteFile(cfg, []byte(off+on), 0o644); err != nil {
				t.Fatal(err)
			}
			if code, body, err := get(c, "/status/v1/simple/ca"); err != nil || code != test.code {
				t.Errorf("%d %q, %v; want %d", code, body, err, test.code)
			}
			if code, _, _ := get(c, "/puppet-ca/v1/certificate/x"); code != 404 {
				t.Errorf("certificate/x: %d, want 404", code)
			}
		})
	}
	ca := newCA(t)
	if _, err := stub.NewMaster("127.0.0.1:0", issue(t, ca, stub.IssueOptions{CommonName: name}), stub.WithCACfg("/nonexistent")); err == nil {
		t.Error("it starts without its ca.cfg")
	}
}

// A revoked client is refused from the moment that the host CRL says so; one of
// another CA always.
func TestHostCRL(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	crlFile := write(t, []byte(read(t, d, "ca_crl.pem")))
	m := startWith(t, ca, host, stub.WithHostCRL(write(t, ca.PEM()), crlFile))
	node := "/puppet/v3/node/agent.example.net"
	ask := func(id *stub.Identity) int {
		code, _, _ := get(clientAs(t, ca, m, id), node+"?environment=production")
		return code
	}
	if code := ask(agent); code != 200 {
		t.Errorf("the agent gets %d", code)
	}
	if code := ask(issue(t, newCA(t), stub.IssueOptions{CommonName: "agent.example.net"})); code != 0 {
		t.Errorf("an agent of another CA gets %d, want no connection", code)
	}
	open := clientAs(t, ca, m, agent)
	if code, _, _ := get(open, node); code != 200 {
		t.Errorf("the agent gets %d", code)
	}
	if err := d.Revoke("agent.example.net"); err != nil {
		t.Fatal(err)
	}
	if code := ask(agent); code != 200 {
		t.Errorf("before its host CRL says so the agent gets %d", code)
	}
	replaceWith := func(content string) {
		t.Helper()
		if err := os.WriteFile(crlFile+".new", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(crlFile+".new", crlFile); err != nil {
			t.Fatal(err)
		}
	}
	replaceWith(read(t, d, "ca_crl.pem"))
	if code := ask(agent); code != 0 {
		t.Errorf("the revoked agent gets %d, want no connection", code)
	}
	if code := ask(host); code != 403 {
		t.Errorf("another gets %d", code)
	}
	if code, _, _ := get(open, node); code != 200 {
		t.Errorf("the connection that was open gets %d", code)
	}
	for _, broken := range []string{"", "garbage", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n"} {
		replaceWith(broken)
		if code := ask(agent); code != 0 {
			t.Errorf("with a host CRL of %q the revoked agent gets %d", broken, code)
		}
	}
	if code, _, err := get(client(t, ca, m), "/status/v1/simple"); code != 200 {
		t.Errorf("without a certificate: %d, %v", code, err)
	}
}

// On the CA's host the CA's CRL becomes the host's, at the start and whenever it
// changes; where the service is off it does not.
func TestHostCRLOfTheCA(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	dir := t.TempDir()
	caFile := write(t, ca.PEM())
	mine, other := filepath.Join(dir, "mine.pem"), filepath.Join(dir, "other.pem")
	m := startWith(t, ca, host, stub.WithCADir(d.Path()), stub.WithHostCRL(caFile, mine))
	off := write(t, []byte("puppetlabs.services.ca.certificate-authority-disabled-service/certificate-authority-disabled-service\n"))
	startWith(t, ca, host, stub.WithCADir(d.Path()), stub.WithHostCRL(caFile, other), stub.WithCACfg(off))
	is := func(path string) func() bool {
		return func() bool {
			b, err := os.ReadFile(path)
			return err == nil && string(b) == read(t, d, "ca_crl.pem")
		}
	}
	eventually(t, "the CRL is copied at the start", is(mine))
	if code, body := do(t, clientAs(t, ca, m, host), "PUT", "/puppet-ca/v1/certificate_status/agent.example.net", []byte(`{"desired_state":"revoked"}`)); code != 204 {
		t.Fatalf("revoking: %d %q", code, body)
	}
	eventually(t, "the CRL is copied when it changes", is(mine))
	if code, _, _ := get(clientAs(t, ca, m, agent), "/puppet/v3/node/agent.example.net"); code != 0 {
		t.Errorf("the revoked agent gets %d", code)
	}
	if _, err := os.Stat(other); err == nil {
		t.Error("a master whose CA service is off has copied the CRL")
	}
}

func TestDeepCheck(t *testing.T) {
	d, ca, host, agent := newCADir(t)
	m := startWith(t, ca, host, stub.WithHostCRL(write(t, ca.PEM()), write(t, []byte(read(t, d, "ca_crl.pem")))))
	const own = "/puppet/v3/node/" + name
	for _, test := range []struct {
		name string
		c    *http.Client
		code int
	}{
		{"itself", clientAs(t, ca, m, host), 200},
		{"another", clientAs(t, ca, m, agent), 403},
		{"nobody", client(t, ca, m), 403},
	} {
		if code, body, err := get(test.c, own); code != test.code {
			t.Errorf("%s: %d %q, %v; want %d", test.name, code, body, err, test.code)
		}
	}
	m.SetCompileFailure("Could not find class ::role")
	code, body, err := get(clientAs(t, ca, m, host), own)
	if code != 500 || !strings.Contains(body, "Could not find class ::role") {
		t.Errorf("%d %q, %v", code, body, err)
	}
	wantAnswer(t, client(t, ca, m), "/status/v1/simple", 200, "running")
	m.SetCompileFailure("")
	if code, _, _ := get(clientAs(t, ca, m, host), own); code != 200 {
		t.Errorf("well again: %d", code)
	}

	// A master without any CA lets nobody in as somebody.
	bare := startWith(t, newCA(t), host)
	if code, _, _ := get(clientAs(t, ca, bare, host), own); code != 403 {
		t.Errorf("a master without a CA file: %d", code)
	}
}

func TestJRubies(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	c := client(t, ca, m)
	m.SetJRubies(6, 2)
	var got struct {
		Status struct {
			Experimental struct {
				Metrics struct {
					Total int `json:"num-jrubies"`
					Free  int `json:"num-free-jrubies"`
				}
			}
		}
	}
	for query, want := range map[string][2]int{"?level=debug": {6, 2}, "": {}} {
		_, body, err := get(c, "/status/v1/services/jruby-metrics"+query)
		got.Status.Experimental.Metrics.Total, got.Status.Experimental.Metrics.Free = 0, 0
		if e := json.Unmarshal([]byte(body), &got); err != nil || e != nil {
			t.Fatal(err, e, body)
		}
		if g := got.Status.Experimental.Metrics; [2]int{g.Total, g.Free} != want {
			t.Errorf("%q: %+v, want %v", query, g, want)
		}
	}
}

func TestPuppetDB(t *testing.T) {
	ca := newCA(t)
	p, err := stub.NewPuppetDB("127.0.0.1:0", issue(t, ca, stub.IssueOptions{CommonName: name}))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c := clientTo(t, ca, p.Addr().String())
	wantAnswer(t, c, "/status/v1/simple", 200, "running")
	p.SetQueue(17)
	p.SetStatus(503, "starting")
	wantAnswer(t, c, "/status/v1/simple", 503, "starting")
	code, body, err := get(c, "/status/v1/services/puppetdb-status")
	var got struct {
		State  string
		Status struct {
			Maintenance bool `json:"maintenance_mode?"`
			Writes      bool `json:"write_db_up?"`
			Queue       int  `json:"queue_depth"`
		}
	}
	if e := json.Unmarshal([]byte(body), &got); err != nil || e != nil || code != 503 {
		t.Fatal(code, err, e, body)
	}
	if got.State != "starting" || got.Status.Queue != 17 || !got.Status.Writes || got.Status.Maintenance {
		t.Errorf("%+v", got)
	}
	if _, err := stub.NewPuppetDB(p.Addr().String(), issue(t, ca, stub.IssueOptions{CommonName: name})); err == nil {
		t.Error("two on one address")
	}
	if _, err := stub.NewPuppetDB("127.0.0.1:0", nil); err == nil {
		t.Error("it starts without a certificate")
	}
}
