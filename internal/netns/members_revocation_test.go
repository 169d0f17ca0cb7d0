//go:build linux

package netns_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// revokedWithin is within what time every master's own CRL has a revocation.
const revokedWithin = 3 * time.Second

// A certificate that is revoked on the camaster is in every reachable master's own CRL at
// once, and refused there; a master behind a cut gets it when it can.
func TestRevocation(t *testing.T) {
	t.Parallel()
	s := newMemberSite(t, masters...)
	issued := func(name string) tls.Certificate {
		t.Helper()
		csr, key := s.request(name)
		pair, err := tls.X509KeyPair(csr, key)
		if err != nil {
			t.Fatal(err)
		}
		return pair
	}
	everywhere := func(began time.Time, pair tls.Certificate, names ...string) {
		t.Helper()
		var conditions []condition
		for _, name := range names {
			conditions = append(conditions, condition{name, func() bool { return s.revoked(name, pair.Leaf.SerialNumber) }})
		}
		took := s.since(began, conditions, patience)
		t.Logf("%s is in the host's CRL after: %s", pair.Leaf.Subject.CommonName, figures(took))
		if last(took) > revokedWithin {
			t.Errorf("a revocation took %v, want %v", last(took), revokedWithin)
		}
		for _, name := range names {
			if code, err := s.enters(name, pair); err == nil {
				t.Errorf("%s lets %s in: HTTP %d", name, pair.Leaf.Subject.CommonName, code)
			}
		}
	}
	first, second := issued("first.example.net"), issued("second.example.net")
	for _, name := range masters {
		for _, pair := range []tls.Certificate{first, second} {
			if code, err := s.enters(name, pair); err != nil || code != http.StatusOK {
				t.Fatalf("%s does not let %s in: HTTP %d, %v", name, pair.Leaf.Subject.CommonName, code, err)
			}
		}
	}
	began := time.Now()
	s.revoke("m1", "first.example.net")
	everywhere(began, first, masters...)

	s.cut()
	s.until([]condition{s.answers(severed), s.dead()}, patience)
	began = time.Now()
	s.revoke("m1", "second.example.net")
	everywhere(began, second, "m1", "m2")
	for _, name := range []string{"m3", "m4"} {
		if code, err := s.enters(name, second); s.revoked(name, second.Leaf.SerialNumber) || err != nil || code != http.StatusOK {
			t.Errorf("%s, behind the cut, knows: HTTP %d, %v", name, code, err)
		}
		if _, err := s.enters(name, first); err == nil {
			t.Errorf("%s, behind the cut, has forgotten what it knew", name)
		}
	}
	began = time.Now()
	s.net.Heal()
	everywhere(began, second, "m3", "m4")
	s.until(append(s.well(), s.stands("m1"), s.inStep()), patience)
}

// request has m1's CA sign a certificate.
func (s *memberSite) request(name string) (cert, key []byte) {
	s.t.Helper()
	csr, key, err := stub.NewCSR(name)
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.client("m1", "m1")
	defer c.CloseIdleConnections()
	for _, ask := range []struct {
		method, path string
		body         []byte
	}{{http.MethodPut, "certificate_request/", csr}, {http.MethodGet, "certificate/", nil}} {
		code, answer, err := exchange(s.t.Context(), c, "m1", ask.method, "/puppet-ca/v1/"+ask.path+name, ask.body)
		if err != nil || code != http.StatusOK {
			s.t.Fatalf("a certificate for %s: HTTP %d: %s, %v", name, code, answer, err)
		}
		cert = answer
	}
	return cert, key
}

// revoke has a host's CA revoke, as `puppetserver ca revoke` does there.
func (s *memberSite) revoke(on, name string) {
	s.t.Helper()
	pair, err := tls.LoadX509KeyPair(s.path(on+".pem"), s.path(on+".key"))
	if err != nil {
		s.t.Fatal(err)
	}
	c := s.client(on, on, pair)
	defer c.CloseIdleConnections()
	code, answer, err := exchange(s.t.Context(), c, on, http.MethodPut, "/puppet-ca/v1/certificate_status/"+name, []byte(`{"desired_state":"revoked"}`))
	if err != nil || code != http.StatusNoContent {
		s.t.Fatalf("revoking %s on %s: HTTP %d: %s, %v", name, on, code, answer, err)
	}
}

// revoked reports whether a serial is in a host's own CRL.
func (s *memberSite) revoked(on string, serial *big.Int) bool {
	block, _ := pem.Decode([]byte(readFile(s.t, s.path(on, "crl.pem"))))
	if block == nil {
		s.t.Fatalf("the CRL of %s has no CRL in it", on)
	}
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		s.t.Fatalf("the CRL of %s: %v", on, err)
	}
	return slices.ContainsFunc(list.RevokedCertificateEntries, func(e x509.RevocationListEntry) bool { return e.SerialNumber.Cmp(serial) == 0 })
}

// enters asks a master, from its own host, as an agent does for its node; an error is a
// handshake that was refused.
func (s *memberSite) enters(name string, pair tls.Certificate) (code int, err error) {
	s.t.Helper()
	c := s.client(name, name, pair)
	defer c.CloseIdleConnections()
	code, answer, err := exchange(s.t.Context(), c, name, http.MethodGet, "/puppet/v3/node/"+pair.Leaf.Subject.CommonName, nil)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s", answer)
	}
	return code, err
}
