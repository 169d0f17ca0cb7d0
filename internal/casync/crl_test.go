package casync_test

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/casync"
)

// host is a master's ssldir.
type host struct {
	crl, ca string
	f       *casync.CRLFollower
	stop    func()
}

func (s *site) follow(t testing.TB, change func(*casync.CRLConfig)) *host {
	t.Helper()
	dir := t.TempDir()
	h := &host{crl: filepath.Join(dir, "crl.pem"), ca: filepath.Join(dir, "ca.pem")}
	for from, to := range map[string]string{"ca_crt.pem": h.ca, "ca_crl.pem": h.crl} {
		data, err := os.ReadFile(s.Path(from))
		must(t, err)
		must(t, os.WriteFile(to, data, 0o640))
	}
	c := casync.CRLConfig{
		Path: h.crl, CA: h.ca, Self: "m2.example.net", TLS: s.config(t, "m2.example.net"),
		Source: func() (casync.Source, error) {
			return casync.Source{URL: s.url, Certname: "m1.example.net"}, nil
		},
	}
	if change != nil {
		change(&c)
	}
	var err error
	h.f, err = casync.NewCRLFollower(c)
	must(t, err)
	h.stop = run(t, h.f.Run)
	return h
}

func (h *host) revokes(t testing.TB, serial int64) bool {
	t.Helper()
	data, err := os.ReadFile(h.crl)
	must(t, err)
	return revokes(t, data, serial)
}

func revokes(t testing.TB, data []byte, serial int64) bool {
	t.Helper()
	list, err := x509.ParseRevocationList(decode(data))
	must(t, err)
	for _, e := range list.RevokedCertificateEntries {
		if e.SerialNumber.Cmp(big.NewInt(serial)) == 0 {
			return true
		}
	}
	return false
}

func decode(data []byte) []byte {
	for block := range casync.Blocks(data, "X509 CRL") {
		return block
	}
	return nil
}

func TestCRL(t *testing.T) {
	s := newSite(t, options{})
	h := s.follow(t, nil)
	wait(t, "it is the same", func() bool { return s.server.Stats().Waiting == 1 })
	for n := int64(3); n < 6; n++ {
		begun := time.Now()
		s.Revoke(t, uint64(n))
		wait(t, "it is revoked", func() bool { return h.revokes(t, n) })
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("after %v", took)
		} else {
			t.Logf("revoked there after %v", took)
		}
	}
	a, err := os.Stat(s.Path("ca_crl.pem"))
	must(t, err)
	b, err := os.Stat(h.crl)
	must(t, err)
	if !a.ModTime().Equal(b.ModTime()) || b.Mode() != 0o640 {
		t.Errorf("%v %v, want %v", b.ModTime(), b.Mode(), a.ModTime())
	}
	wait(t, "it is noted", func() bool { st := h.f.Stats(); return st.Updates == 3 && !st.Same.IsZero() && st.Error == "" })
	// The CA is gone, and comes back.
	s.stop("not the camaster")
	wait(t, "it is noted", func() bool { return strings.Contains(h.f.Stats().Error, "not the camaster") })
	s.Revoke(t, 6)
	s.stop("")
	wait(t, "it is revoked", func() bool { return h.revokes(t, 6) })
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(h.crl), ".*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// On the camaster itself the file is next door.
func TestCRLOfTheCamasterItself(t *testing.T) {
	s := newSite(t, options{})
	h := s.follow(t, func(c *casync.CRLConfig) {
		c.Local = s.Path("ca_crl.pem")
		c.Source = func() (casync.Source, error) { return casync.Source{Certname: "m2.example.net"}, nil }
	})
	s.Revoke(t, 3)
	wait(t, "it is revoked", func() bool { return h.revokes(t, 3) })
	if n := s.requests("/v1/crl"); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestCRLOfAnInfrastructure(t *testing.T) {
	s := newSite(t, options{config: func(c *casync.ServerConfig) { c.InfraCRL = true }})
	data := s.CRL(t, 50, []x509.RevocationListEntry{{SerialNumber: big.NewInt(77), RevocationTime: time.Now()}})
	must(t, os.WriteFile(s.Path("infra_crl.pem"), data, 0o644))
	h := s.follow(t, nil)
	wait(t, "it is revoked", func() bool { return h.revokes(t, 77) })
}

// With what is no newer CRL of the host's CA, the host's stays.
func TestCRLThatIsRefused(t *testing.T) {
	entry := func(n int64) x509.RevocationListEntry {
		return x509.RevocationListEntry{SerialNumber: big.NewInt(n), RevocationTime: time.Now()}
	}
	s := newSite(t, options{})
	other := newSite(t, options{})
	s.Revoke(t, 3, 4)
	old, err := os.ReadFile(s.Path("ca_crl.pem")) // number 2
	must(t, err)
	ca, err := os.ReadFile(s.Path("ca_crt.pem"))
	must(t, err)
	foreign, err := os.ReadFile(other.Path("ca_crl.pem"))
	must(t, err)
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"newer", s.CRL(t, 3, nil), ""},
		{"newer, with more", s.CRL(t, 3, []x509.RevocationListEntry{entry(3), entry(4), entry(5)}), ""},
		{"signed again", s.CRL(t, 2, []x509.RevocationListEntry{entry(3), entry(4)}), ""},
		{"the same number, with more", s.CRL(t, 2, []x509.RevocationListEntry{entry(3), entry(4), entry(5)}), ""},
		{"older", s.CRL(t, 1, []x509.RevocationListEntry{entry(3), entry(4)}), "is number 1, and the host has number 2"},
		{"the same number, with less", s.CRL(t, 2, []x509.RevocationListEntry{entry(3)}), "does not revoke serial 4"},
		{"another CA's", foreign, "not signed by the host's CA"},
		{"both", append(s.CRL(t, 3, nil), foreign...), "not signed by the host's CA"},
		{"cut off", s.CRL(t, 3, nil)[:100], "no whole PEM CRL"},
		{"another and half of one", append(s.CRL(t, 3, nil), s.CRL(t, 4, nil)[:100]...), "no whole PEM CRL"},
		{"empty", nil, "no whole PEM CRL"},
	} {
		err := casync.Acceptable(c.data, old, ca)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if err := casync.Acceptable(s.CRL(t, 1, nil), []byte("rubbish"), ca); err != nil {
		t.Errorf("over rubbish: %v", err)
	}
	if err := casync.Acceptable(s.CRL(t, 1, nil), nil, ca); err != nil {
		t.Errorf("over nothing: %v", err)
	}

	// The host's CRL is the newer one: it holds, and that is said.
	h := s.follow(t, nil)
	h.stop()
	newer := s.CRL(t, 9, nil)
	must(t, os.WriteFile(h.crl, newer, 0o640))
	h2, err := casync.NewCRLFollower(casync.CRLConfig{
		Path: h.crl, CA: h.ca, TLS: s.config(t, "m2.example.net"),
		Source: func() (casync.Source, error) { return casync.Source{URL: s.url, Certname: "m1.example.net"}, nil },
	})
	must(t, err)
	run(t, h2.Run)
	wait(t, "it is noted", func() bool { return strings.Contains(h2.Stats().Error, "the host has number 9") })
	if data, _ := os.ReadFile(h.crl); !bytes.Equal(data, newer) {
		t.Error("it was replaced")
	}
}

// Many masters wait at little cost, and all hear of it.
func TestManyFollow(t *testing.T) {
	s := newSite(t, options{})
	const n = 40
	var hosts []*host
	for range n {
		hosts = append(hosts, s.follow(t, nil))
	}
	wait(t, "all wait", func() bool { return s.server.Stats().Waiting == n })
	begun := time.Now()
	s.Revoke(t, 3)
	var there atomic.Int32
	for _, h := range hosts {
		wait(t, "it is revoked", func() bool { return h.revokes(t, 3) })
		there.Add(1)
	}
	t.Logf("%d hosts after %v", there.Load(), time.Since(begun))
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("after %v", took)
	}
}
