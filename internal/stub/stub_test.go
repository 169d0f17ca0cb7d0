package stub_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
	"go.uber.org/goleak"
)

const name = "m1.example.net"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newCA(t *testing.T) *stub.CA {
	t.Helper()
	ca, err := stub.NewCA("Puppet CA: " + t.Name())
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issue(t *testing.T, ca *stub.CA, o stub.IssueOptions) *stub.Identity {
	t.Helper()
	id, err := ca.Issue(o)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func start(t *testing.T, ca *stub.CA) *stub.Master {
	t.Helper()
	m, err := stub.NewMaster("127.0.0.1:0", issue(t, ca, stub.IssueOptions{CommonName: name}))
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

// client verifies the master for its name, as an agent does.
func client(t *testing.T, ca *stub.CA, m *stub.Master) *http.Client {
	t.Helper()
	return clientTo(t, ca, m.Addr().String())
}

func clientTo(t *testing.T, ca *stub.CA, addr string) *http.Client {
	t.Helper()
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.Pool(), ServerName: name, ClientSessionCache: tls.NewLRUClientSessionCache(0)},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func get(c *http.Client, path string) (int, string, error) {
	r, err := c.Get("https://" + name + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

func wantAnswer(t *testing.T, c *http.Client, path string, code int, body string) {
	t.Helper()
	gotCode, gotBody, err := get(c, path)
	if err != nil || gotCode != code || gotBody != body {
		t.Errorf("GET %s: %d %q, error %v; want %d %q", path, gotCode, gotBody, err, code, body)
	}
}

func TestStatus(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	c := client(t, ca, m)

	wantAnswer(t, c, "/status/v1/simple", 200, "running")
	m.SetStatus(503, "starting")
	wantAnswer(t, c, "/status/v1/simple", 503, "starting")
	wantAnswer(t, c, "/status/v1/simple/ca", 404, "not found: ca")
	m.SetCA(true)
	wantAnswer(t, c, "/status/v1/simple/ca", 200, "running")
	wantAnswer(t, c, "/puppet/v3/catalog/x", 404, "404 page not found\n")

	if got := m.Requests(); got != 5 {
		t.Errorf("Requests() = %d, want 5", got)
	}
	if got := m.Connections(); got != 1 {
		t.Errorf("Connections() = %d, want 1: the connection is kept alive", got)
	}
}

func TestIPv6(t *testing.T) {
	m, err := stub.NewMaster("[::1]:0", issue(t, newCA(t), stub.IssueOptions{CommonName: name}))
	if err != nil {
		t.Skip(err)
	}
	defer m.Close()
	if want := netip.IPv6Loopback(); m.Addr().Addr() != want {
		t.Errorf("Addr() = %v, want address %v", m.Addr(), want)
	}
}

func TestIssue(t *testing.T) {
	ca := newCA(t)
	now := time.Now()
	for _, test := range []struct {
		name    string
		options stub.IssueOptions
		verify  string // the name a client wants
		err     any    // nil, or what errors.As must find
	}{
		{"its own name", stub.IssueOptions{CommonName: name}, name, nil},
		{"a further name", stub.IssueOptions{CommonName: name, DNSNames: []string{"m1.datacenter1.example.net"}}, "m1.datacenter1.example.net", nil},
		{"the certname beside further names", stub.IssueOptions{CommonName: name, DNSNames: []string{"m1.datacenter1.example.net"}}, name, nil},
		{"another name", stub.IssueOptions{CommonName: "m2.example.net"}, name, &x509.HostnameError{}},
		{"expired", stub.IssueOptions{CommonName: name, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)}, name, &x509.CertificateInvalidError{}},
		{"expired long ago, only the end given", stub.IssueOptions{CommonName: name, NotAfter: now.AddDate(-2, 0, 0)}, name, &x509.CertificateInvalidError{}},
		{"not yet valid", stub.IssueOptions{CommonName: name, NotBefore: now.Add(time.Hour)}, name, &x509.CertificateInvalidError{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			cert := issue(t, ca, test.options).Certificate.Leaf
			_, err := cert.Verify(x509.VerifyOptions{DNSName: test.verify, Roots: ca.Pool()})
			if test.err == nil && err != nil || test.err != nil && !errors.As(err, test.err) {
				t.Errorf("Verify(%q): %v, want %T", test.verify, err, test.err)
			}
			if !cert.NotBefore.Before(cert.NotAfter) {
				t.Errorf("valid from %v to %v", cert.NotBefore, cert.NotAfter)
			}
		})
	}
	if _, err := ca.Issue(stub.IssueOptions{}); err == nil {
		t.Error("a certificate without a name was issued")
	}
	one, two := issue(t, ca, stub.IssueOptions{CommonName: name}), issue(t, ca, stub.IssueOptions{CommonName: name})
	if one.Certificate.Leaf.SerialNumber.Cmp(two.Certificate.Leaf.SerialNumber) == 0 {
		t.Error("two certificates have one serial")
	}
}

func TestPEMFilesWork(t *testing.T) {
	ca := newCA(t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca.PEM()) || !pool.Equal(ca.Pool()) {
		t.Error("PEM() and Pool() are not the same CA")
	}
	id := issue(t, ca, stub.IssueOptions{CommonName: name})
	if _, err := tls.X509KeyPair(id.CertPEM, id.KeyPEM); err != nil {
		t.Error(err)
	}
}

func TestSetIdentityShowsOnNewConnections(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	c := client(t, ca, m)
	wantAnswer(t, c, "/status/v1/simple", 200, "running")

	foreign := issue(t, newCA(t), stub.IssueOptions{CommonName: name})
	m.SetIdentity(foreign)
	wantAnswer(t, c, "/status/v1/simple", 200, "running") // the open connection
	c.CloseIdleConnections()
	_, _, err := get(c, "/status/v1/simple")
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("with a certificate of another CA: %v, want %T", err, unknown)
	}
}

// A killed process is seen at once on an idle connection, and its port refuses.
func TestCloseEndsEveryConnection(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	conn, err := tls.Dial("tcp", m.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: name})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	silent, err := net.Dial("tcp", m.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()

	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{conn, silent} {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("%T: read %d bytes, error %v; want an end", c, n, err)
		}
	}
	if c, err := net.Dial("tcp", m.Addr().String()); err == nil {
		c.Close()
		t.Error("the port still accepts")
	}
	if err := m.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

func TestDelay(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	c := client(t, ca, m)
	wantAnswer(t, c, "/status/v1/simple", 200, "running")
	m.SetDelay(time.Hour)
	c.Timeout = 50 * time.Millisecond
	if _, _, err := get(c, "/status/v1/simple"); !isTimeout(err) {
		t.Errorf("with a delay of an hour: %v, want a timeout", err)
	}
	c.Timeout = 10 * time.Second
	m.SetDelay(0)
	wantAnswer(t, c, "/status/v1/simple", 200, "running")
}

// Close must not wait for an answer that is held back.
func TestCloseEndsADelayedAnswer(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	m.SetDelay(time.Hour)
	c := client(t, ca, m)
	failed := make(chan error, 1)
	go func() {
		_, _, err := get(c, "/status/v1/simple")
		failed <- err
	}()
	for m.Requests() == 0 {
		time.Sleep(time.Millisecond)
	}
	m.Close()
	if err := <-failed; err == nil || isTimeout(err) {
		t.Errorf("the request: %v, want a lost connection", err)
	}
}

func TestPause(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	open, fresh := client(t, ca, m), client(t, ca, m)
	wantAnswer(t, open, "/status/v1/simple", 200, "running")
	m.Pause()
	m.Pause()
	for _, c := range []*http.Client{open, fresh} {
		c.Timeout = 50 * time.Millisecond
		if _, _, err := get(c, "/status/v1/simple"); !isTimeout(err) {
			t.Errorf("while paused: %v, want a timeout", err)
		}
		c.Timeout = 10 * time.Second
	}
	m.Resume()
	m.Resume()
	wantAnswer(t, open, "/status/v1/simple", 200, "running")
	wantAnswer(t, fresh, "/status/v1/simple", 200, "running")
	m.Pause() // Close ends a paused master too
}

func TestAddressInUse(t *testing.T) {
	ca := newCA(t)
	m := start(t, ca)
	if second, err := stub.NewMaster(m.Addr().String(), issue(t, ca, stub.IssueOptions{CommonName: name})); err == nil {
		second.Close()
		t.Error("two masters on one address")
	}
}
