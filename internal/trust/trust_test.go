package trust_test

import (
	"bytes"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const kind = "test"

func seal(t testing.TB, id *trust.Identity, kind string) trust.Sealed {
	t.Helper()
	s, err := id.Seal(kind, []byte("the payload"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestVerify(t *testing.T) {
	now := time.Now()
	root := newIssuer(t, "Puppet CA: m1.example.net", nil)
	other := newIssuer(t, "Puppet CA: m1.example.net", nil) // of the same name
	good, revoked := root.good("NS1.example.net", nil), root.good("ns2.example.net", nil)
	root.revoke(revoked.Leaf)
	a := newFiles(t, root.pem(), root.crl()).open()
	expired := root.issue("ns3.example.net", nil, now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0))
	early := root.issue("ns4.example.net", nil, now.Add(time.Hour), now.AddDate(1, 0, 0))
	tests := []struct {
		name string
		id   *trust.Identity
		at   time.Time
		want string // part of the error, "" for none
	}{
		{"good", good, now, ""},
		{"on its first day", good, good.Leaf.NotBefore, ""},
		{"on its last day", good, good.Leaf.NotAfter, ""},
		{"before its time", good, good.Leaf.NotBefore.Add(-time.Second), "not valid before"},
		{"after its time", good, good.Leaf.NotAfter.Add(time.Second), "has expired"},
		{"expired", expired, now, "ns3.example.net has expired"},
		{"expired since", expired, now.AddDate(-1, -1, 0), ""},
		{"not yet valid", early, now, "ns4.example.net is not valid before"},
		{"of another CA of the same name", other.good("ns1.example.net", nil), now, "not of our Puppet CA"},
		{"of another CA, in the past", other.good("ns1.example.net", nil), now.AddDate(-20, 0, 0), "not of our Puppet CA"},
		{"revoked", revoked, now, "ns2.example.net"},
		{"revoked, and of before the revocation", revoked, now.Add(-30 * time.Minute), "revoked"},
		{"before the CA's time", root.issue("ns5.example.net", nil, now.AddDate(-9, 0, 0), now.AddDate(1, 0, 0)), now.AddDate(-8, 0, 0), ""},
	}
	tests[len(tests)-1].want = "not" // the CA itself was not valid yet
	for _, tt := range tests {
		for _, again := range []string{"first", "remembered"} {
			t.Run(tt.name+"/"+again, func(t *testing.T) {
				err := a.Verify(tt.id.Leaf, nil, tt.at)
				name, sealErr := a.Unseal(kind, seal(t, tt.id, kind), tt.at)
				if tt.want == "" {
					if err != nil || sealErr != nil || name != trust.Certname(tt.id.Leaf) {
						t.Errorf("%v, %q %v", err, name, sealErr)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("err %v, want %q", err, tt.want)
				}
				if sealErr == nil || name != "" {
					t.Errorf("its seal is %q's, %v", name, sealErr)
				}
				if got, want := errors.Is(err, trust.ErrRevoked), strings.HasPrefix(tt.name, "revoked"); got != want {
					t.Errorf("ErrRevoked %v: %v", got, err)
				}
			})
		}
	}
	if name := trust.Certname(good.Leaf); name != "ns1.example.net" {
		t.Errorf("certname %q", name)
	}
	if err := a.Verify(good.Leaf, nil, now, x509.ExtKeyUsageServerAuth); err == nil || !strings.Contains(err.Error(), "not made for this use") {
		t.Errorf("a client's certificate for a server: %v", err)
	}
	if err := a.Verify(good.Leaf, nil, now, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
}

// A chain that is remembered is asked for its time and for revocation each time.
func TestARememberedChainExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newIssuer(t, "Puppet CA: m1.example.net", nil)
		f := newFiles(t, root.pem(), root.crl())
		a := f.open()
		short := root.issue("ns1.example.net", nil, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
		if err := a.Verify(short.Leaf, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		if err := a.Verify(short.Leaf, nil, time.Now()); err == nil || !strings.Contains(err.Error(), "expired") {
			t.Errorf("err %v", err)
		}
		// More chains than are remembered.
		key := ecdsaKey(t)
		for i := range 1100 {
			if err := a.Verify(root.good(fmt.Sprintf("ns%d.example.net", i), key).Leaf, nil, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// The CRL is followed: within two seconds of a rename it holds.
func TestRevokedWhileRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := newIssuer(t, "Puppet CA: m1.example.net", nil)
		f := newFiles(t, root.pem(), root.crl())
		a := f.open()
		id := root.good("ns1.example.net", nil)
		other := root.good("ns2.example.net", nil)
		check := func(want bool) {
			t.Helper()
			_, err := a.Unseal(kind, seal(t, id, kind), time.Now())
			if errors.Is(err, trust.ErrRevoked) != want || !want && err != nil {
				t.Errorf("revoked %v is wanted: %v", want, err)
			}
			if _, err := a.Unseal(kind, seal(t, other, kind), time.Now()); err != nil {
				t.Errorf("another one: %v", err)
			}
		}
		check(false)
		first, err := a.Revocation()
		if err != nil {
			t.Fatal(err)
		}
		root.revoke(id.Leaf)
		f.setCRL(root.crl())
		time.Sleep(2 * time.Second)
		check(true)
		if next, err := a.Revocation(); err != nil || !next.After(first) {
			t.Errorf("the next update is %v, before it was %v; %v", next, first, err)
		}
		// A file that cannot be used gives nobody a right, and is told.
		foreign := newIssuer(t, "Puppet CA: m9.example.net", nil)
		impostor := newIssuer(t, "Puppet CA: m1.example.net", nil)
		good := root.crl()
		flipped := bytes.Replace(good, []byte("\nM"), []byte("\nN"), 1)
		for name, data := range map[string][]byte{
			"empty": nil, "garbage": []byte("garbage"), "cut": good[:len(good)/2], "changed": flipped,
			"another CA's": foreign.crl(), "another CA's of that name": impostor.crl(), "ours and another's": slices.Concat(good, foreign.crl()),
			"a certificate": root.pem(),
		} {
			f.setCRL(data)
			time.Sleep(2 * time.Second)
			check(true)
			if _, err := a.Revocation(); err == nil || !strings.Contains(err.Error(), f.crl) {
				t.Errorf("%s: Revocation says %v", name, err)
			}
		}
		if err := os.Remove(f.crl); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		check(true)
		if _, err := a.Revocation(); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("no file: Revocation says %v", err)
		}
		f.setCRL(root.crl())
		time.Sleep(2 * time.Second)
		check(true)
		if _, err := a.Revocation(); err != nil {
			t.Errorf("Revocation says %v of a good file", err)
		}
	})
}

// Puppet 6 and later: the CA is an intermediate one, ca.pem has it and its root,
// crl.pem has a list of each.
func TestAnIntermediateCA(t *testing.T) {
	now := time.Now()
	type ca struct{ root, middle, low *issuer }
	newCA := func() ca {
		root := newIssuer(t, "Puppet Root CA: 1", nil)
		middle := newIssuer(t, "Puppet CA: m1.example.net", root)
		return ca{root, middle, newIssuer(t, "Puppet CA: low", middle)}
	}
	lists := func(cas ...*issuer) (all []byte) {
		for _, c := range cas {
			all = append(all, c.crl()...)
		}
		return all
	}
	t.Run("good", func(t *testing.T) {
		c := newCA()
		a := newFiles(t, slices.Concat(c.middle.pem(), c.root.pem()), lists(c.middle, c.root)).open()
		id := c.middle.good("ns1.example.net", nil)
		if name, err := a.Unseal(kind, seal(t, id, kind), now); err != nil || name != "ns1.example.net" {
			t.Errorf("%q, %v", name, err)
		}
		if next, err := a.Revocation(); err != nil || next.After(now.AddDate(0, 0, 32)) {
			t.Errorf("the earlier of the next updates is %v, %v", next, err)
		}
	})
	t.Run("the leaf revoked", func(t *testing.T) {
		c := newCA()
		id, same := c.middle.good("ns1.example.net", nil), c.middle.good("ns2.example.net", nil)
		c.middle.revoke(id.Leaf)
		c.root.revoke(same.Leaf) // the same number, of another issuer: not this one
		a := newFiles(t, slices.Concat(c.root.pem(), c.middle.pem()), lists(c.root, c.middle)).open()
		if err := a.Verify(id.Leaf, nil, now); !errors.Is(err, trust.ErrRevoked) {
			t.Errorf("err %v", err)
		}
		if err := a.Verify(same.Leaf, nil, now); err != nil {
			t.Error(err)
		}
	})
	t.Run("the intermediate revoked", func(t *testing.T) {
		c := newCA()
		id := c.middle.good("ns1.example.net", nil)
		c.root.revoke(c.middle.cert)
		a := newFiles(t, slices.Concat(c.middle.pem(), c.root.pem()), lists(c.middle, c.root)).open()
		if err := a.Verify(id.Leaf, nil, now); !errors.Is(err, trust.ErrRevoked) {
			t.Errorf("err %v", err)
		}
	})
	t.Run("one above it revoked", func(t *testing.T) {
		c := newCA()
		id := c.low.good("ns1.example.net", nil)
		bundle := slices.Concat(c.low.pem(), c.middle.pem(), c.root.pem())
		if err := newFiles(t, bundle, lists(c.low, c.middle, c.root)).open().Verify(id.Leaf, nil, now); err != nil {
			t.Fatal(err)
		}
		c.root.revoke(c.middle.cert)
		if err := newFiles(t, bundle, lists(c.low, c.middle, c.root)).open().Verify(id.Leaf, nil, now); !errors.Is(err, trust.ErrRevoked) {
			t.Errorf("err %v", err)
		}
	})
	t.Run("the intermediate shown by the other side", func(t *testing.T) {
		c := newCA()
		id := c.middle.good("ns1.example.net", nil)
		a := newFiles(t, c.root.pem(), lists(c.root)).open()
		if err := a.Verify(id.Leaf, nil, now); err == nil {
			t.Error("a certificate without its issuer is verified")
		}
		if err := a.Verify(id.Leaf, []*x509.Certificate{c.middle.cert}, now); err != nil {
			t.Error(err)
		}
		// Nobody brings a CA of his own.
		mine := newIssuer(t, "Puppet CA: m1.example.net", nil)
		forged := mine.good("ns1.example.net", nil)
		if err := a.Verify(forged.Leaf, []*x509.Certificate{mine.cert, c.middle.cert}, now); err == nil {
			t.Error("a chain to a CA that came with it is verified")
		}
	})
	t.Run("the intermediate alone", func(t *testing.T) {
		c := newCA()
		id := c.middle.good("ns1.example.net", nil)
		if err := newFiles(t, c.middle.pem(), lists(c.middle)).open().Verify(id.Leaf, nil, now); err != nil {
			t.Errorf("a bundle without a root: %v", err)
		}
	})
	t.Run("a leaf is no CA", func(t *testing.T) {
		c := newCA()
		id := c.middle.good("ns1.example.net", nil)
		under := &issuer{t: t, cert: id.Leaf, key: id.Certificate.PrivateKey.(crypto.Signer)}
		forged := under.good("ns2.example.net", nil)
		a := newFiles(t, slices.Concat(c.middle.pem(), c.root.pem()), lists(c.middle, c.root)).open()
		if err := a.Verify(forged.Leaf, []*x509.Certificate{id.Leaf}, now); err == nil {
			t.Error("a certificate that a node has signed is verified")
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	root, foreign := newIssuer(t, "Puppet CA: m1.example.net", nil), newIssuer(t, "Puppet CA: m9.example.net", nil)
	for name, f := range map[string]*files{
		"another CA's CRL":   newFiles(t, root.pem(), foreign.crl()),
		"an empty CRL":       newFiles(t, root.pem(), nil),
		"a damaged CRL":      newFiles(t, root.pem(), root.crl()[:100]),
		"an empty bundle":    newFiles(t, nil, root.crl()),
		"a damaged bundle":   newFiles(t, bytes.Replace(root.pem(), []byte("\nM"), []byte("\nN"), 1), root.crl()),
		"a bundle of a CRL":  newFiles(t, root.crl(), root.crl()),
		"CRLs of two CAs":    newFiles(t, root.pem(), slices.Concat(root.crl(), foreign.crl())),
		"no bundle at all":   {t, "missing/ca.pem", "missing/crl.pem"},
		"no CRL at all":      {t, newFiles(t, root.pem(), nil).ca, "missing/crl.pem"},
		"a bundle of no one": newFiles(t, []byte("garbage"), root.crl()),
	} {
		if _, err := trust.Open(f.ca, f.crl); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	// Without a CRL file, revocations are not looked at, on purpose.
	f := newFiles(t, root.pem(), nil)
	a, err := trust.Open(f.ca, "")
	if err != nil {
		t.Fatal(err)
	}
	if next, err := a.Revocation(); !next.IsZero() || err != nil {
		t.Errorf("Revocation says %v, %v", next, err)
	}
}

func TestSeals(t *testing.T) {
	root := newIssuer(t, "Puppet CA: m1.example.net", nil)
	a := newFiles(t, root.pem(), root.crl()).open()
	for name, key := range map[string]crypto.Signer{"RSA": rsaKey(t), "ECDSA": ecdsaKey(t), "Ed25519": ed25519Key(t)} {
		t.Run(name, func(t *testing.T) {
			id := root.good("ns1.example.net", key)
			s := seal(t, id, kind)
			if who, err := a.Unseal(kind, s, time.Now()); err != nil || who != "ns1.example.net" {
				t.Fatalf("%q, %v", who, err)
			}
			refused := func(what string, s trust.Sealed, kind string) {
				t.Helper()
				if who, err := a.Unseal(kind, s, time.Now()); err == nil {
					t.Errorf("%s: taken for %s's", what, who)
				}
			}
			for _, other := range []string{"", "tes", "test ", "Test", "test\n11\nthe payload"} {
				refused("as "+other, s, other)
			}
			for i := range len(s.Signature) * 8 {
				bad := s
				bad.Signature = slices.Clone(s.Signature)
				bad.Signature[i/8] ^= 1 << (i % 8)
				refused(fmt.Sprintf("bit %d of the signature", i), bad, kind)
			}
			for i := range len(s.Payload) * 8 {
				bad := s
				bad.Payload = slices.Clone(s.Payload)
				bad.Payload[i/8] ^= 1 << (i % 8)
				refused(fmt.Sprintf("bit %d of the payload", i), bad, kind)
			}
			other := root.good("ns2.example.net", nil)
			for what, bad := range map[string]trust.Sealed{
				"nothing":                      {},
				"no payload":                   {Certificate: s.Certificate, Signature: s.Signature},
				"no certificate":               {Payload: s.Payload, Signature: s.Signature},
				"no signature":                 {Payload: s.Payload, Certificate: s.Certificate},
				"a longer signature":           {s.Payload, s.Certificate, append(slices.Clone(s.Signature), 0)},
				"another node's certificate":   {s.Payload, other.Leaf.Raw, s.Signature},
				"the CA's certificate":         {s.Payload, root.cert.Raw, s.Signature},
				"a certificate and more":       {s.Payload, append(slices.Clone(s.Certificate), 0), s.Signature},
				"a certificate without an end": {s.Payload, s.Certificate[:len(s.Certificate)-1], s.Signature},
			} {
				refused(what, bad, kind)
			}
			for i := range len(s.Certificate) {
				bad := s
				bad.Certificate = slices.Clone(s.Certificate)
				bad.Certificate[i] ^= 1
				refused(fmt.Sprintf("byte %d of the certificate", i), bad, kind)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	root := newIssuer(t, "Puppet CA: m1.example.net", nil)
	good := root.good("ns1.example.net", nil)
	if _, err := trust.NewIdentity(tls.Certificate{Certificate: [][]byte{good.Leaf.Raw}, PrivateKey: "no key"}); err == nil || !strings.Contains(err.Error(), "cannot sign") {
		t.Errorf("a key that cannot sign: %v", err)
	}
	if _, err := trust.NewIdentity(tls.Certificate{Certificate: [][]byte{{1, 2}}, PrivateKey: ecdsaKey(t)}); err == nil {
		t.Error("garbage is an identity")
	}
	nameless := create(t, &x509.Certificate{SerialNumber: root.cert.SerialNumber, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}, root.cert, good.Leaf.PublicKey, root.key)
	if _, err := trust.NewIdentity(tls.Certificate{Certificate: [][]byte{nameless.Raw}, PrivateKey: ecdsaKey(t)}); err == nil || !strings.Contains(err.Error(), "common name") {
		t.Errorf("without a name: %v", err)
	}
	if _, err := trust.LoadIdentity("missing.pem", "missing.pem"); err == nil || !strings.Contains(err.Error(), "missing.pem") {
		t.Errorf("err %v", err)
	}
}
