package admin_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

func TestNewClient(t *testing.T) {
	s := newSite(t, nil)
	for _, server := range []string{"unix:///run/x.sock", "https://ns1.example.net", "https://ns1.example.net:8153/", "https://[::1]:8153"} {
		if c, err := admin.NewClient(server, admin.ClientOptions{Authority: s.authority}); err != nil || c.Server() != server {
			t.Errorf("%q: %v", server, err)
		}
	}
	for _, server := range []string{"", "ns1.example.net", "http://ns1.example.net:8153", "unix://run/x", "unix:///", "https://", "https://ns1/v1", "https://me@ns1", "https://ns1:x", ":"} {
		if _, err := admin.NewClient(server, admin.ClientOptions{Authority: s.authority}); err == nil || !strings.Contains(err.Error(), "https://HOST:PORT") {
			t.Errorf("%q: got %v", server, err)
		}
	}
	if _, err := admin.NewClient("https://ns1", admin.ClientOptions{}); err == nil || !strings.Contains(err.Error(), "CA certificate is needed") {
		t.Errorf("without an authority: %v", err)
	}
}

// Every method reaches its route, over the socket and over https.
func TestClientMethods(t *testing.T) {
	s := newSite(t, nil)
	s.backend.status = admin.Status{Node: "ns1", Camaster: admin.Camaster{Host: "m1.example.net"}}
	s.backend.masters = []admin.Master{{Host: "m1.example.net"}}
	s.backend.zones = []admin.Zone{{Datacenter: "datacenter1"}, {Datacenter: "datacenter 2/x", Serial: 7}}
	s.backend.keys = admin.Keys{Nodes: []admin.NodeKeys{{Node: "ns1"}}}
	s.backend.result = admin.Result{Acked: 2, Of: 3}
	for _, c := range []*admin.Client{s.local(), s.client(s.named("ops.example.net"))} {
		ctx := t.Context()
		is := func(what string, ok bool, err error) {
			t.Helper()
			if !ok || err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		status, err := c.Status(ctx)
		is("Status", status.Node == "ns1", err)
		masters, err := c.Masters(ctx)
		is("Masters", len(masters) == 1 && masters[0].Host == "m1.example.net", err)
		zones, err := c.Zones(ctx)
		is("Zones", len(zones) == 2, err)
		zone, err := c.Zone(ctx, "datacenter 2/x")
		is("Zone", zone.Serial == 7, err)
		camaster, err := c.Camaster(ctx)
		is("Camaster", camaster.Host == "m1.example.net", err)
		cluster, err := c.Cluster(ctx)
		is("Cluster", cluster.Node == "ns1", err)
		keys, err := c.Keys(ctx)
		is("Keys", len(keys.Nodes) == 1, err)
		key, err := c.AddKey(ctx)
		is("AddKey", key.ID == "0123abcd", err)
		r, err := c.Drain(ctx, "m1", admin.SetDrain{Reason: "drill"})
		is("Drain", r.Acked == 2 && r.Of == 3, err)
		_, err = c.Zone(ctx, "nowhere")
		wantFault(t, err, 404, "no-such-datacenter", "nowhere", "datacenter1")
	}
}

// wantUnreachable wants an error that says what is wrong in words, and no more than
// a person wants to read.
func wantUnreachable(t *testing.T, err error, server string, words ...string) {
	t.Helper()
	var u *admin.UnreachableError
	if !errors.As(err, &u) || u.Server != server || !strings.HasPrefix(err.Error(), server+": ") || strings.Contains(err.Error(), "Get \"") {
		t.Errorf("got %v, want an UnreachableError", err)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
}

func TestUnreachable(t *testing.T) {
	s := newSite(t, nil)
	ask := func(server string, o admin.ClientOptions) error {
		t.Helper()
		if o.Authority == nil {
			o.Authority = s.authority
		}
		_, err := s.clientOf(server, o).Camaster(t.Context())
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	defer l.Close() // its connections are never accepted
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	fatal(t, err)
	closed.Close()

	t.Run("no socket", func(t *testing.T) {
		server := "unix://" + filepath.Join(s.dir, "nothing.sock")
		err := ask(server, admin.ClientOptions{})
		wantUnreachable(t, err, server, "no such socket", "`admin "+server+"`")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v is not fs.ErrNotExist", err)
		}
	})
	t.Run("stale socket", func(t *testing.T) {
		leave(t, filepath.Join(s.dir, "stale.sock"))
		server := "unix://" + filepath.Join(s.dir, "stale.sock")
		wantUnreachable(t, ask(server, admin.ClientOptions{}), server, "connection refused")
	})
	t.Run("refused", func(t *testing.T) {
		server := "https://" + closed.Addr().String()
		wantUnreachable(t, ask(server, admin.ClientOptions{}), server, "connection refused")
		_, err := s.clientOf(server, admin.ClientOptions{Authority: s.authority}).AddKey(t.Context())
		if strings.Contains(err.Error(), "history") {
			t.Errorf("%v: nothing was sent", err)
		}
	})
	t.Run("name", func(t *testing.T) {
		server := "https://nothing.invalid:8153" // RFC 6761, section 6.4
		wantUnreachable(t, ask(server, admin.ClientOptions{}), server, "nothing.invalid")
	})
	t.Run("silence", func(t *testing.T) {
		server := "https://" + l.Addr().String()
		wantUnreachable(t, ask(server, admin.ClientOptions{Timeout: 50 * time.Millisecond}), server, "no answer in time")
		c := s.clientOf(server, admin.ClientOptions{Authority: s.authority, Timeout: 50 * time.Millisecond})
		wantUnreachable(t, c.Events(t.Context(), 0, nil), server, "no answer in time")
		_, err := c.AddKey(t.Context())
		wantUnreachable(t, err, server, "whether the write was done is not known")
	})
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.local().Camaster(ctx); err != context.Canceled {
			t.Errorf("got %v", err)
		}
	})
	t.Run("another CA", func(t *testing.T) {
		other := newSite(t, nil)
		wantUnreachable(t, ask(s.url, admin.ClientOptions{Authority: other.authority}), s.url, "not of the given CA")
	})
	t.Run("another name", func(t *testing.T) {
		server := strings.Replace(s.url, "localhost", "127.0.0.1", 1)
		wantUnreachable(t, ask(server, admin.ClientOptions{}), server, "not for this name", "ns1.example.net")
	})
}

// serveTLS is a server with an identity that says nothing of interest.
func serveTLS(t *testing.T, id *trust.Identity) string {
	t.Helper()
	h := httptest.NewUnstartedServer(http.NotFoundHandler())
	h.TLS = &tls.Config{Certificates: []tls.Certificate{id.Certificate}}
	h.Config.ErrorLog = quiet
	h.StartTLS()
	t.Cleanup(h.Close)
	return strings.Replace(h.URL, "127.0.0.1", "localhost", 1)
}

func TestServersCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	ask := func(o stub.IssueOptions, revoke bool) (string, error) {
		o.CommonName = "localhost"
		id := s.identity(o)
		if revoke {
			s.revoke(id)
			// The CRL is looked at once a second.
			eventually(t, "the revocation is known", func() bool { return s.authority.Verify(id.Leaf, nil, time.Now()) != nil })
		}
		server := serveTLS(t, id)
		_, err := s.client(nil).Camaster(t.Context()) // the other server is none of this
		wantFault(t, err, 403, "no-certificate")
		_, err = s.clientOf(server, admin.ClientOptions{Authority: s.authority}).Camaster(t.Context())
		return server, err
	}
	server, err := ask(stub.IssueOptions{}, true)
	wantUnreachable(t, err, server, "not to be trusted", "revoked")
	server, err = ask(stub.IssueOptions{NotAfter: time.Now().Add(-time.Hour)}, false)
	wantUnreachable(t, err, server, "not valid now")
	server, err = ask(stub.IssueOptions{}, false)
	if err == nil || !strings.Contains(err.Error(), `"404 Not Found"`) || !strings.Contains(err.Error(), "another service") {
		t.Errorf("another service at %s: %v", server, err)
	}
}

func TestNotTLS(t *testing.T) {
	s := newSite(t, nil)
	h := httptest.NewServer(http.NotFoundHandler())
	defer h.Close()
	server := strings.Replace(h.URL, "http://", "https://", 1)
	_, err := s.clientOf(server, admin.ClientOptions{Authority: s.authority}).Camaster(t.Context())
	wantUnreachable(t, err, server, "does not speak TLS")
}

// speak serves raw answers on a unix socket.
func speak(t *testing.T, s *site, handler http.HandlerFunc) *admin.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	fatal(t, err)
	h := &http.Server{Handler: handler, ErrorLog: quiet}
	done := make(chan struct{})
	go func() { defer close(done); h.Serve(l) }()
	t.Cleanup(func() { h.Close(); <-done })
	return s.clientOf("unix://"+path, admin.ClientOptions{Timeout: patience})
}

// What a server may say wrongly is an error, and no panic or success.
func TestStrangeAnswers(t *testing.T) {
	s := newSite(t, onlyUnix)
	for _, test := range []struct {
		status      int
		media, body string
		want        string
	}{
		{200, "text/html", "<html>", "another service"},
		{200, "application/json", "{", "cannot be read"},
		{302, "text/html", "", "another service"},
		{204, "application/json", "", "another service"},
		{500, "application/problem+json", "x", "another service"},
		{403, "application/problem+json", `{"title": "no"}`, "no"},
		{200, "application/json", `{"host": "m1", "newer": {"field": 1}}`, ""},
	} {
		c := speak(t, s, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", test.media)
			w.Header().Set("Location", "/v1/status")
			w.WriteHeader(test.status)
			fmt.Fprint(w, test.body)
		})
		_, err := c.Camaster(t.Context())
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%d %s %q: got %v, want %q", test.status, test.media, test.body, err, test.want)
		}
	}
	t.Run("cut", func(t *testing.T) {
		c := speak(t, s, func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) })
		_, err := c.Camaster(t.Context())
		wantUnreachable(t, err, c.Server(), "closed the connection")
	})
	t.Run("bad event", func(t *testing.T) {
		c := speak(t, s, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: x\n\n")
		})
		if err := c.Events(t.Context(), 0, func(admin.Event) error { return nil }); err == nil || !strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("large event", func(t *testing.T) {
		c := speak(t, s, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, "data: ", strings.Repeat("x", 2<<20))
		})
		if err := c.Events(t.Context(), 0, func(admin.Event) error { return nil }); err == nil || !strings.Contains(err.Error(), "over 1048576 bytes") {
			t.Errorf("got %v", err)
		}
	})
}
