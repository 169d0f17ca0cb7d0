package casync_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
	"github.com/puppetsrv/puppetsrv/internal/casync"
)

func TestSync(t *testing.T) {
	s := newSite(t, options{})
	s.Fill(t, 20)
	p, _ := s.pull(t, nil)
	s.waitSame(t)
	if e := s.to.Evidence(t.Context()); e.Source != "m1.example.net" || !e.Sealed || e.Signed != 21 {
		t.Errorf("%+v", e)
	}
	before, sent := p.Stats(), s.server.Stats()
	begun := time.Now()
	serial := s.Sign(t, "new.example.net")
	s.waitSame(t)
	t.Logf("a signature is there after %v", time.Since(begun))
	after := p.Stats()
	if n := after.Files - before.Files; n != 3 {
		t.Errorf("%d files were fetched for one certificate", n)
	}
	if n := s.server.Stats().Files - sent.Files; n != 3 {
		t.Errorf("%d files were sent", n)
	}
	s.Clean(t, "new.example.net", serial)
	s.waitSame(t)
	if _, err := os.Stat(filepath.Join(s.path, "signed", "new.example.net.pem")); err == nil {
		t.Error("a cleaned certificate is still there")
	}
	// Owner, mode and time are the source's.
	for _, name := range []string{"ca_key.pem", "ca_crl.pem", "signed/m1.example.net.pem"} {
		a, err := os.Stat(s.Path(name))
		must(t, err)
		b, err := os.Stat(filepath.Join(s.path, name))
		must(t, err)
		if a.Mode() != b.Mode() || !a.ModTime().Equal(b.ModTime()) {
			t.Errorf("%s: %v %v, and %v %v there", name, a.Mode(), a.ModTime(), b.Mode(), b.ModTime())
		}
	}
	// An inventory that grew is not sent anew.
	if n := after.Bytes - before.Bytes; n > 1500 {
		t.Errorf("%d bytes for one certificate", n)
	}
}

func TestSyncOfOpenSSLsCA(t *testing.T) {
	for _, intermediate := range []bool{false, true} {
		s := newSite(t, options{})
		must(t, os.RemoveAll(s.Dir))
		cadirtest.NewOpenSSL(t, s.Dir, intermediate, "m1.example.net", "agent1.example.net")
		_, stop := s.pull(t, nil)
		s.waitSame(t)
		stop()
	}
}

// Nothing is written on a host whose CA is open, or that is being opened.
func TestNeverOntoAnOpenCA(t *testing.T) {
	s := newSite(t, options{})
	_, _ = s.pull(t, nil)
	s.waitSame(t)
	must(t, s.to.Unseal(t.Context()))
	asked := s.requests("/v1/ca/changes")
	s.Sign(t, "new.example.net")
	time.Sleep(700 * time.Millisecond) // in which nothing may happen
	if _, err := os.Stat(filepath.Join(s.path, "signed", "new.example.net.pem")); err == nil {
		t.Fatal("an open CA was written")
	}
	if n := s.requests("/v1/ca/changes"); n > asked+1 {
		t.Errorf("it goes on asking: %d, %d", asked, n)
	}
	// Unsealed by somebody else, while it follows.
	must(t, s.to.Seal(t.Context()))
	must(t, os.Chmod(filepath.Join(s.path, "serial"), 0o644))
	s.to.Follow(false)
	s.waitProblem(t, "the CA is not sealed")
	if _, err := os.Stat(filepath.Join(s.path, "signed", "new.example.net.pem")); err == nil {
		t.Fatal("an open CA was written")
	}
	must(t, s.to.Seal(t.Context()))
	s.waitSame(t)
}

// The key is in there.
func TestWhoMayHaveIt(t *testing.T) {
	s := newSite(t, options{})
	get := func(name, method, path string) (int, string) {
		t.Helper()
		config := s.config(t, name)
		config.ServerName = "m1.example.net"
		transport := &http.Transport{TLSClientConfig: config}
		defer transport.CloseIdleConnections()
		r, err := http.NewRequest(method, s.url+path, strings.NewReader(`{"files":[]}`))
		must(t, err)
		response, err := (&http.Client{Transport: transport}).Do(r)
		must(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		must(t, err)
		return response.StatusCode, string(text)
	}
	for _, c := range []struct {
		name, method, path string
		code               int
		text               string
	}{
		{"m3.example.net", "GET", "/v1/ca/changes", 200, `"full":true`},
		{"m2.example.net", "GET", "/v1/ca/changes", 403, "m2.example.net is none of the replicas of this CA"},
		{"m2.example.net", "POST", "/v1/ca/files", 403, "none of the replicas"},
		{"m2.example.net", "GET", "/v1/ca/files", 403, "none of the replicas"},
		{"m2.example.net", "GET", "/v1/crl", 200, "BEGIN X509 CRL"},
		{"m3.example.net", "POST", "/v1/ca/files", 200, ""},
		{"m3.example.net", "GET", "/v1/ca/files", 405, "use POST"},
		{"m3.example.net", "GET", "/v1/ca/changes?wait=x", 400, "give a duration"},
		{"m3.example.net", "GET", "/v1/ca/changes?generation=x", 400, "give the number"},
		{"m3.example.net", "GET", "/v1/ca", 404, ""},
	} {
		code, text := get(c.name, c.method, c.path)
		if code != c.code || !strings.Contains(text, c.text) {
			t.Errorf("%s: %s %s: %d %.200s", c.name, c.method, c.path, code, text)
		}
		if c.code == 403 && strings.Contains(text, "ca_key") {
			t.Error("it says more than it must")
		}
	}
	if n := s.server.Stats().Refused; n != 3 {
		t.Errorf("%d refused", n)
	}
	s.stop("m1.example.net is not the camaster, m3.example.net is")
	for _, path := range []string{"/v1/ca/changes", "/v1/crl"} {
		if code, text := get("m3.example.net", "GET", path); code != 503 || !strings.Contains(text, "is not the camaster") {
			t.Errorf("%s: %d %s", path, code, text)
		}
	}
	// Without TLS there is no name.
	w := httptest.NewRecorder()
	s.server.ServeHTTP(w, httptest.NewRequest("GET", "/v1/crl", nil))
	if w.Code != 403 {
		t.Errorf("without TLS: %d", w.Code)
	}
	s.stop("")
	must(t, os.Remove(s.Path("ca_key.pem")))
	if code, text := get("m3.example.net", "GET", "/v1/ca/changes"); code != 503 || !strings.Contains(text, "ca_key.pem missing") {
		t.Errorf("a partial CA: %d %s", code, text)
	}
}

// Whose certificate it is counts, not which address.
func TestTheSourceIsWhoItIsSaidToBe(t *testing.T) {
	s := newSite(t, options{})
	_, _ = s.pull(t, func(c *casync.PullerConfig) {
		c.Source = func() (casync.Source, error) { return casync.Source{URL: s.url, Certname: "m2.example.net"}, nil }
	})
	s.waitProblem(t, "m2.example.net")
	// A name that it may serve is not who it is.
	third := newSite(t, options{})
	_, _ = third.pull(t, func(c *casync.PullerConfig) {
		c.Source = func() (casync.Source, error) {
			return casync.Source{URL: third.url, Certname: "puppet-camaster.example.net"}, nil
		}
	})
	third.waitProblem(t, "not that of puppet-camaster.example.net")
	other := newSite(t, options{})
	_, _ = other.pull(t, func(c *casync.PullerConfig) {
		c.TLS = &tls.Config{Certificates: c.TLS.Certificates, RootCAs: s.tls.Pool()}
	})
	other.waitProblem(t, "certificate")
	for _, s := range []*site{s, other, third} {
		if _, err := os.Stat(s.path); err == nil {
			t.Error("something was written")
		}
	}
}

// What a source sends is not believed.
func TestDamagedOnTheWay(t *testing.T) {
	for name, damage := range map[string]func(path string, body []byte) []byte{
		"a flipped byte": func(path string, body []byte) []byte {
			if path == "/v1/ca/files" {
				body[bytes.Index(body, []byte("-----BEGIN CERTIFICATE"))+100] ^= 1
			}
			return body
		},
		"cut off": func(path string, body []byte) []byte { return body[:len(body)*2/3] },
		"a list that is cut off": func(path string, body []byte) []byte {
			return body[:bytes.LastIndexByte(body[:len(body)-1], '\n')+1]
		},
		"files that nobody wants": func(path string, body []byte) []byte {
			if path == "/v1/ca/files" {
				var b bytes.Buffer
				w := tar.NewWriter(&b)
				w.WriteHeader(&tar.Header{Name: "../../etc/passwd", Size: 4, Mode: 0o644})
				w.Write([]byte("root"))
				w.Close()
				return b.Bytes()
			}
			return body
		},
		"a path out of it": func(path string, body []byte) []byte {
			return bytes.Replace(body, []byte(`"path":"serial"`), []byte(`"path":"../serial"`), 1)
		},
		"another hash": func(path string, body []byte) []byte {
			return bytes.Replace(body, []byte(`"hash":"`), []byte(`"hash":"0`), 1)
		},
		"rubbish": func(string, []byte) []byte { return []byte("<html>") },
	} {
		t.Run(name, func(t *testing.T) {
			var on atomic.Bool
			s := newSite(t, options{wrap: func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					rec := httptest.NewRecorder()
					h.ServeHTTP(rec, r)
					body := rec.Body.Bytes()
					if on.Load() && rec.Code == http.StatusOK {
						body = damage(r.URL.Path, body)
					}
					w.WriteHeader(rec.Code)
					w.Write(body)
				})
			}})
			on.Store(true)
			p, _ := s.pull(t, nil)
			wait(t, "failures", func() bool { return p.Stats().Failures >= 2 })
			if _, err := os.Stat(s.path); err == nil {
				t.Error("something was written")
			}
			on.Store(false)
			s.waitSame(t)
			on.Store(true)
			failures := p.Stats().Failures
			s.Sign(t, "new.example.net")
			wait(t, "failures", func() bool { return p.Stats().Failures >= failures+2 })
			must(t, cadirtest.Check(s.path))
			if _, err := os.Stat(filepath.Join(s.path, "signed", "new.example.net.pem")); err == nil {
				t.Error("something was written")
			}
			on.Store(false)
			s.waitSame(t)
		})
	}
}

// A source that has half a set serves nothing, and its standby keeps what it has.
func TestHalfWrittenSetAtTheSource(t *testing.T) {
	s := newSite(t, options{})
	_, _ = s.pull(t, nil)
	s.waitSame(t)
	good, err := os.ReadFile(s.Path("inventory.txt"))
	must(t, err)
	must(t, os.WriteFile(s.Path("inventory.txt"), []byte("0x00FF 2030-01-01T00:00:00UTC 20"), 0o644))
	s.waitProblem(t, "inventory.txt: line 1")
	must(t, cadirtest.Check(s.path))
	must(t, os.WriteFile(s.Path("inventory.txt"), good, 0o644))
	s.waitSame(t)
}

// After a cut only the rest is fetched.
func TestResume(t *testing.T) {
	s := newSite(t, options{})
	s.Fill(t, 3000)
	link := newProxy(t, strings.TrimPrefix(s.url, "https://"))
	s.url = link.url()
	set, err := s.from.Look(t.Context())
	must(t, err)
	size := int64(0)
	for _, f := range set.Files {
		size += f.Size
	}
	link.limit.Store(size) // with what is around it, somewhere in the middle
	p, stop := s.pull(t, nil)
	wait(t, "a cut", func() bool { return p.Stats().Failures >= 1 })
	stop()
	first := p.Stats()
	if first.Files == 0 || first.Syncs != 0 {
		t.Fatalf("%+v", first)
	}
	s.standby(t) // also over a restart
	p, _ = s.pull(t, nil)
	s.waitSame(t)
	t.Logf("%d files before the cut, %d after it", first.Files, p.Stats().Files)
	if n := first.Files + p.Stats().Files; n != uint64(len(set.Files)) {
		t.Errorf("%d files were fetched, there are %d", n, len(set.Files))
	}
}

func TestRate(t *testing.T) {
	const rate = 200 << 10
	s := newSite(t, options{config: func(c *casync.ServerConfig) { c.Rate = rate }})
	s.Fill(t, 600)
	begun := time.Now()
	_, _ = s.pull(t, nil)
	s.waitSame(t)
	took, sent := time.Since(begun), s.server.Stats().Bytes
	if least := time.Duration(sent-(64<<10)) * time.Second / rate; took < least || least < 500*time.Millisecond {
		t.Errorf("%d bytes in %v: not before %v", sent, took, least)
	}
}

// A host that stops being camaster tells those who wait, and another is followed at once.
func TestAnotherCamaster(t *testing.T) {
	s := newSite(t, options{})
	var source atomic.Pointer[casync.Source]
	source.Store(&casync.Source{URL: s.url, Certname: "m1.example.net"})
	_, _ = s.pull(t, func(c *casync.PullerConfig) {
		c.Wait = 30 * time.Second
		c.Source = func() (casync.Source, error) { return *source.Load(), nil }
	})
	s.waitSame(t)
	wait(t, "it waits", func() bool { return s.server.Stats().Waiting == 1 })
	s.stop("not any more")
	s.waitProblem(t, "not any more")
	if e := s.to.Evidence(t.Context()); e.Source != "m1.example.net" || e.Synced.IsZero() || !e.Complete {
		t.Errorf("%+v", e)
	}
	s.stop("")
	s.waitSame(t)

	next := newSite(t, options{})
	must(t, os.RemoveAll(next.Dir))
	cadirtest.Copy(t, next.Dir, s.Dir)
	ca := *s.CA
	ca.Dir = next.Dir
	ca.Sign(t, "new.example.net")
	// The members' CA of the other site is another one, so it is asked in vain: what
	// matters is that it is asked at once.
	begun := time.Now()
	source.Store(&casync.Source{URL: next.url, Certname: "m1.example.net"})
	s.waitProblem(t, "certificate")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("the old one was waited for, %v", took)
	}
	source.Store(&casync.Source{Certname: "m3.example.net"}) // this host itself
	wait(t, "nobody waits", func() bool { return s.server.Stats().Waiting == 0 })
}

// A camaster that issues all the time is followed.
func TestSyncWhileSigning(t *testing.T) {
	s := newSite(t, options{})
	_, _ = s.pull(t, nil)
	for i := range 300 {
		n := s.Sign(t, fmt.Sprintf("agent%d.example.net", i))
		if i%7 == 3 {
			s.Clean(t, fmt.Sprintf("agent%d.example.net", i), n)
		}
		time.Sleep(time.Millisecond)
		if i%50 == 0 {
			if _, err := os.Stat(s.path); err == nil {
				must(t, cadirtest.Check(s.path))
			}
		}
	}
	s.waitSame(t)
}

// A CA with 50 000 certificates follows one signature in well under a second, without
// reading the others.
func TestLargeCA(t *testing.T) {
	if raced || testing.Short() {
		t.Skip("50 000 certificates take half a minute; `make test` has them without the race detector")
	}
	base, err := os.MkdirTemp("", "casync")
	must(t, err)
	defer os.RemoveAll(base)
	s := newSite(t, options{})
	s.Fill(t, 50_000)
	begun := time.Now()
	p, _ := s.pull(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	for !s.same(t) {
		select {
		case <-ctx.Done():
			t.Fatal(s.to.Evidence(t.Context()))
		case <-time.After(50 * time.Millisecond):
		}
	}
	first := time.Since(begun)
	var sum time.Duration
	const rounds = 5
	before := p.Stats()
	for i := range rounds {
		want := s.Sign(t, fmt.Sprintf("new%d.example.net", i)) + 1
		begun := time.Now()
		wait(t, "the signature is there", func() bool {
			data, err := cadirtest.Read(filepath.Join(s.path, "serial"))
			_, err2 := os.Stat(filepath.Join(s.path, "signed", fmt.Sprintf("new%d.example.net.pem", i)))
			return err == nil && err2 == nil && string(data) == fmt.Sprintf("%04X", want)
		})
		sum += time.Since(begun)
		for !s.same(t) {
			time.Sleep(50 * time.Millisecond)
		}
	}
	one, after := sum/rounds, p.Stats()
	t.Logf("first %v; one more %v, %d files and %d bytes; ratio %.0f", first, one, (after.Files-before.Files)/rounds, (after.Bytes-before.Bytes)/rounds, float64(first)/float64(one))
	if n := after.Files - before.Files; n != 3*rounds {
		t.Errorf("%d files were fetched for %d certificates", n, rounds)
	}
	if one*3 > first {
		t.Errorf("one more takes %v, the first %v", one, first)
	}
}
