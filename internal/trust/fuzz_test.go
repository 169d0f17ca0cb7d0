package trust_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// No bytes whatsoever are anybody's seal but those that were made.
func FuzzUnseal(f *testing.F) {
	root := fixedIssuer(f)
	a := newFiles(f, root.pem(), root.crl()).open()
	for i, key := range []byte{1, 2} {
		s := seal(f, root.good([]string{"ns1.example.net", "ns2.example.net"}[i], fixedKey(key)), kind)
		f.Add(s.Payload, s.Certificate, s.Signature)
	}
	rsa := seal(f, root.good("ns3.example.net", rsaKey(f)), kind)
	f.Add(rsa.Payload, rsa.Certificate, rsa.Signature)
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, payload, certificate, signature []byte) {
		who, err := a.Unseal(kind, trust.Sealed{Payload: payload, Certificate: certificate, Signature: signature}, time.Now())
		if (who == "") != (err != nil) {
			t.Fatalf("%q, %v", who, err)
		}
		if err == nil && !bytes.Equal(payload, rsa.Payload) {
			t.Fatalf("%q is taken for %s's", payload, who)
		}
	})
}

// A CRL file is used whole or not at all, and never panics.
func FuzzCRL(f *testing.F) {
	root := fixedIssuer(f)
	id := root.good("ns1.example.net", nil)
	root.revoke(id.Leaf)
	good := root.crl()
	f.Add(good)
	f.Add(slices.Concat([]byte("text\n"), good, good))
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	dir := f.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, root.pem(), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "crl.pem")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := trust.Open(ca, path)
		if err != nil {
			return
		}
		// All that the CA has signed names this one.
		if err := a.Verify(id.Leaf, nil, time.Now()); !errors.Is(err, trust.ErrRevoked) {
			t.Fatalf("%q is a CRL, and does not name the revoked one: %v", data, err)
		}
	})
}
