package admin_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// operation is one that openapi.json describes.
type operation struct{ method, path, body string }

func (o operation) write() bool { return o.method != "GET" }

// operations are all that openapi.json describes, so that none is forgotten here.
func operations(t *testing.T) []operation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	data, err := os.ReadFile("openapi.json")
	fatal(t, err)
	fatal(t, json.Unmarshal(data, &doc))
	bodies := map[string]string{
		"PUT /v1/camaster":      `{"host": "m3.example.net", "reason": "drill", "expect": "0"}`,
		"PUT /v1/drains/{host}": `{"reason": "drill"}`,
	}
	queries := map[string]string{"GET /v1/plan": "?kind=failover&to=m3.example.net"}
	var all []operation
	for path, methods := range doc.Paths {
		for m := range methods {
			m = strings.ToUpper(m)
			filled := strings.NewReplacer("{host}", "m3.example.net", "{id}", "0123abcd", "{datacenter}", "datacenter1").Replace(path)
			all = append(all, operation{m, filled + queries[m+" "+path], bodies[m+" "+path]})
		}
	}
	if len(all) < 18 {
		t.Fatalf("openapi.json has %d operations only", len(all))
	}
	return all
}

func TestWhoMay(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	s.backend.zones = []admin.Zone{{Datacenter: "datacenter1"}}
	foreign, err := stub.NewCA("Puppet CA: puppet.example.net") // by the same name
	fatal(t, err)
	revoked := s.named("ops.example.net")
	s.revoke(revoked)
	past := time.Now().Add(-time.Hour)
	// The CRL is looked at once a second.
	c := s.client(revoked)
	eventually(t, "the revoked certificate is refused", func() bool { _, err := c.Status(t.Context()); return err != nil })

	const yes = ""
	for _, test := range []struct {
		name        string
		id          *trust.Identity
		read, write string // the type of the fault
		says        string
	}{
		{"none", nil, "no-certificate", "no-certificate", "admin_allow"},
		{"foreign", identityOf(t, foreign, stub.IssueOptions{CommonName: "ops.example.net"}), "certificate-untrusted", "certificate-untrusted", "not of our Puppet CA"},
		{"expired", s.identity(stub.IssueOptions{CommonName: "ops.example.net", NotAfter: past}), "certificate-expired", "certificate-expired", "expired"},
		{"not yet valid", s.identity(stub.IssueOptions{CommonName: "ops.example.net", NotBefore: time.Now().Add(time.Hour)}), "certificate-not-yet-valid", "certificate-not-yet-valid", "not valid before"},
		{"revoked", revoked, "certificate-revoked", "certificate-revoked", "revoked"},
		{"not listed", s.named("m1.example.net"), "not-allowed", "not-allowed", "`admin_allow "},
		{"a star is a name", s.named("*"), "not-allowed", "not-allowed", "`admin_allow "},
		{"read-only", s.named("monitor.example.net"), yes, "read-only", "`admin_allow write monitor.example.net`"},
		{"allowed, in capitals", s.named("OPS.example.net"), yes, yes, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, http2 := range []bool{false, true} {
				c := s.raw(test.id, http2)
				unknown := operation{"GET", "/v1/nothing", ""} // strangers do not learn that
				all := operations(t)
				if test.read != yes {
					all = append(all, unknown)
				}
				for _, o := range all {
					before := len(s.backend.calls)
					a := s.do(c, o.method, o.path, o.body)
					if want := "HTTP/2.0"; http2 && a.Proto != want {
						t.Fatalf("%s spoken, want %s", a.Proto, want)
					}
					want := test.read
					if o.write() {
						want = test.write
					}
					if want == yes {
						if a.StatusCode != 200 {
							t.Errorf("%v: %s %s", o, a.Status, a.body)
						}
						continue
					}
					var f admin.Fault
					if err := json.Unmarshal([]byte(a.body), &f); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
						t.Errorf("%v: no problem+json: %s %s", o, a.Status, a.body)
					}
					if a.StatusCode != 403 || f.Status != 403 || f.Type != want || !strings.Contains(f.Detail, test.says) || f.Title == "" {
						t.Errorf("%v: %s %s, want 403, %s and %q", o, a.Status, a.body, want, test.says)
					}
					if len(s.backend.calls) != before && o.write() {
						t.Errorf("%v: the backend was called: %s", o, s.backend.last())
					}
				}
			}
		})
	}
}

// A refusal has a line in the log, with who and why; a flood of them has not as many.
func TestRefusalsAreLogged(t *testing.T) {
	s := newSite(t, nil)
	c := s.raw(s.named("m1.example.net"), false)
	s.do(c, "GET", "/v1/status", "")
	lines := s.journal.with("403")
	if len(lines) != 1 || !strings.Contains(lines[0], `"m1.example.net"`) || !strings.Contains(lines[0], "127.0.0.1") ||
		!strings.Contains(lines[0], "/v1/status") || !strings.HasPrefix(lines[0], "WARNING") {
		t.Fatalf("got %q, want one line with name, address, path and reason", lines)
	}
	for range 100 {
		s.do(c, "GET", "/v1/status", "")
	}
	if n := len(s.journal.with("403")); n > 10 {
		t.Errorf("%d lines for 101 refusals", n)
	}
}

// What a stranger wrote into a certificate does not forge a line.
func TestLogInjection(t *testing.T) {
	s := newSite(t, nil)
	foreign, err := stub.NewCA("another")
	fatal(t, err)
	s.do(s.raw(identityOf(t, foreign, stub.IssueOptions{CommonName: "m1\nERROR all is lost\x1b[2J"}), false), "GET", "/v1/status", "")
	lines := s.journal.with("403")
	if len(lines) != 1 || strings.ContainsAny(lines[0], "\n\x1b") {
		t.Errorf("got %q", lines)
	}
}

func TestRevokedWhileConnected(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		s := newSite(t, nil)
		id := s.named("ops.example.net")
		c := s.raw(id, http2)
		reused := false
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
		status := func() int {
			r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/v1/camaster", nil)
			fatal(t, err)
			response, err := c.Do(r)
			fatal(t, err)
			defer response.Body.Close()
			json.NewDecoder(response.Body).Decode(new(any)) // to the end, so that the connection is used again
			response.Body.Read(make([]byte, 10))
			return response.StatusCode
		}
		if got := status(); got != 200 || reused {
			t.Fatalf("first: %d, reused %v", got, reused)
		}
		s.revoke(id)
		eventually(t, "a revoked certificate is refused", func() bool { return status() == 403 })
		if !reused {
			t.Errorf("http2 %v: the refusal was on another connection", http2)
		}
	}
}

func TestExpiredWhileConnected(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	c := s.client(s.identity(stub.IssueOptions{CommonName: "ops.example.net", NotAfter: time.Now().Add(2 * time.Second)}))
	_, err := c.Camaster(t.Context())
	fatal(t, err)
	eventually(t, "the certificate ends", func() bool { _, err = c.Camaster(t.Context()); return err != nil })
	wantFault(t, err, 403, "certificate-expired", "expired")
}

func TestSetAllow(t *testing.T) {
	s := newSite(t, nil)
	c := s.client(s.named("m1.example.net"))
	_, err := c.Camaster(t.Context())
	wantFault(t, err, 403, "not-allowed", "`admin_allow read m1.example.net`")
	_, err = c.AddKey(t.Context())
	wantFault(t, err, 403, "not-allowed", "`admin_allow write m1.example.net`")
	s.server.SetAllow(admin.Allow{Read: []string{"*"}, Write: []string{"*"}})
	_, err = c.Camaster(t.Context())
	fatal(t, err)
	_, err = c.AddKey(t.Context())
	wantFault(t, err, 403, "read-only") // a star is no name to write by
	_, err = s.client(s.named("*")).AddKey(t.Context())
	wantFault(t, err, 403, "read-only")
	s.server.SetAllow(admin.Allow{Write: []string{"m1.example.net"}})
	_, err = c.AddKey(t.Context())
	fatal(t, err)
	if got := s.backend.last(); got != "m1.example.net: add key" {
		t.Errorf("got %q", got)
	}
	s.server.SetAllow(admin.Allow{})
	_, err = c.Camaster(t.Context())
	wantFault(t, err, 403, "not-allowed")
}

// A stranger does not keep a place.
func TestStrangersAreDisconnected(t *testing.T) {
	s := newSite(t, nil)
	c, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.ca.Pool(), ServerName: "localhost"})
	fatal(t, err)
	defer c.Close()
	fatal(t, c.SetDeadline(time.Now().Add(patience)))
	fmt.Fprint(c, "GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n")
	data, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(data), "HTTP/1.1 403 ") {
		t.Errorf("got %q and %v, want 403 and the end", data, err)
	}
}

// Agents renew their certificates; the server follows without a restart.
func TestSetIdentity(t *testing.T) {
	s := newSite(t, nil)
	next := s.identity(stub.IssueOptions{CommonName: "ns1.example.net", DNSNames: []string{"localhost"}})
	s.server.SetIdentity(next)
	a := s.do(s.raw(s.named("ops.example.net"), true), "GET", "/v1/camaster", "")
	if got := a.TLS.PeerCertificates[0].SerialNumber; got.Cmp(next.Leaf.SerialNumber) != 0 {
		t.Errorf("serial %s is shown, want %s", got, next.Leaf.SerialNumber)
	}
}

// A star lets in certificates of the CA, and no others.
func TestStarIsOfTheCA(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Allow = admin.Allow{Read: []string{"*"}} })
	foreign, err := stub.NewCA("another")
	fatal(t, err)
	_, err = s.client(identityOf(t, foreign, stub.IssueOptions{CommonName: "m1.example.net"})).Camaster(t.Context())
	wantFault(t, err, 403, "certificate-untrusted")
	_, err = s.client(nil).Camaster(t.Context())
	wantFault(t, err, 403, "no-certificate")
}

func TestLocalUser(t *testing.T) {
	s := newSite(t, nil)
	_, err := s.local().AddKey(t.Context())
	fatal(t, err)
	me, err := user.Current()
	fatal(t, err)
	if got, want := s.backend.last(), "local:"+me.Username+": add key"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if lines := s.journal.with("POST /v1/keys by local:" + me.Username + ": done"); len(lines) != 1 {
		t.Errorf("the write is not in the log: %q", s.journal.lines)
	}
}

// Web pages have no business here, even in the browser of one who has.
func TestOrigin(t *testing.T) {
	s := newSite(t, nil)
	a := s.do(s.raw(s.named("ops.example.net"), true), "GET", "/v1/status", "", "Origin", "https://evil.example.net")
	if a.StatusCode != 403 || !strings.Contains(a.body, "origin-refused") {
		t.Errorf("%s %s", a.Status, a.body)
	}
}

func TestNoIdentityNoHTTPS(t *testing.T) {
	_, err := admin.Listen(admin.Config{Addresses: []string{"https://127.0.0.1:0"}, Log: new(journal)})
	if err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("got %v", err)
	}
}

func TestNotReady(t *testing.T) {
	s := newSite(t, func(_ *site, cfg *admin.Config) { cfg.Backend = nil })
	c := s.local()
	_, err := c.Status(context.Background())
	wantFault(t, err, 503, "not-ready")
	s.server.SetBackend(s.backend)
	_, err = c.Status(context.Background())
	fatal(t, err)
}
