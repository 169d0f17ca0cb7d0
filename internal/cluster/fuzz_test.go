package cluster_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/register"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// fixedCA is a CA with two nodes, the same in each process: a fuzzer has many.
func fixedCA(t testing.TB) (authority *trust.Authority, one, two *trust.Identity) {
	t.Helper()
	from, to := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2090, 1, 1, 0, 0, 0, 0, time.UTC)
	key := func(n byte) ed25519.PrivateKey {
		return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Puppet CA: m1.example.net"}, NotBefore: from, NotAfter: to,
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key(0).Public(), key(0))
	check(t, err)
	path := filepath.Join(t.TempDir(), "ca.pem")
	check(t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	authority, err = trust.Open(path, "")
	check(t, err)
	var ids []*trust.Identity
	for n := byte(1); n <= 2; n++ {
		leaf := &x509.Certificate{SerialNumber: big.NewInt(int64(n) + 1), Subject: pkix.Name{CommonName: nodeName(int(n))}, NotBefore: from, NotAfter: to}
		der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key(n).Public(), key(0))
		check(t, err)
		id, err := trust.NewIdentity(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key(n)})
		check(t, err)
		ids = append(ids, id)
	}
	return authority, ids[0], ids[1]
}

// fixedEntry is one that the second node wrote.
func fixedEntry(t testing.TB) []byte {
	e := entryBy("ns2.example.net", "camaster", "m2.example.net.", 1, register.Version{})
	e.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	payload, err := register.Encode(e)
	check(t, err)
	return payload
}

// No message panics, and only the entry that a node has signed gets in.
func FuzzReceived(f *testing.F) {
	authority, one, two := fixedCA(f)
	s := newSite(f, nil, 1)
	s.ids[one.Name] = one
	s.pki = &pki{t: f, authority: authority}
	s.log = quietLog{}
	cfg := s.config(one.Name)
	cfg.Gossip.Profile = gossip.Local
	c, err := cluster.Start(cfg)
	check(f, err)
	f.Cleanup(c.Close)

	add := func(m any) []byte {
		data, err := json.Marshal(m)
		check(f, err)
		f.Add(data)
		return data
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	payload := fixedEntry(f)
	good := add(entries(two.Name, sealed(f, two, "register entry", payload)))
	add(object{"report": sealed(f, two, "report", deflated(f, object{"observer": two.Name, "role": "node", "release": "r", "started": at, "boot": 1, "seq": 1, "masters": []object{{"host": "m1."}}}))})
	add(object{"beat": sealed(f, two, "beat", object{"observer": two.Name, "boot": 1, "seq": 1, "beat": 1})})
	add(object{"call": sealed(f, two, "call", object{"id": 1, "from": two.Name, "to": one.Name, "boot": 1, "seq": 1, "time": at, "op": "add-key", "arg": make([]byte, 32)})})
	add(object{"reply": sealed(f, two, "reply", object{"id": 1, "from": two.Name, "to": one.Name})})
	add(object{"summary": object{"from": two.Name, "registers": object{"camaster": []byte{1}}, "reports": object{one.Name: []int{1, 2}}}})
	for _, m := range []string{"", "null", "[]", `{"entries":{}}`, `{"report":{}}`, `{"entries":{"entries":[{}]}}`} {
		f.Add([]byte(m))
	}
	cluster.Receive(c, good)
	want := content(c.Registers())
	if want == "" {
		f.Fatal("a good entry is not taken")
	}
	keys, err := c.Keys(f.Context())
	check(f, err)
	f.Fuzz(func(t *testing.T, m []byte) {
		cluster.Receive(c, m)
		if got := content(c.Registers()); got != want {
			t.Fatalf("%q has got in:\n%s", m, got)
		}
		if now := cfg.Gossip.KeyRing.Keys(); len(now) != len(keys[0].Keys) || now[0] != keys[0].Keys[0] {
			t.Fatalf("%q has changed the ring to %v", m, now)
		}
	})
}

// A file is taken whole or not at all: then nothing of it is, and it stays as it is.
func FuzzRegistersFile(f *testing.F) {
	authority, one, two := fixedCA(f)
	var good []byte
	{
		d := newDisk()
		c, err := startAlone(one, authority, d)
		check(f, err)
		_, err = c.Write(f.Context(), flip("m1.example.net.", "drill"), cluster.WaitNone)
		check(f, err)
		m, err := json.Marshal(entries(two.Name, sealed(f, two, "register entry", fixedEntry(f))))
		check(f, err)
		cluster.Receive(c, bytes.Replace(m, []byte(`"id":7`), []byte(`"id":0`), 1))
		_, err = c.Write(f.Context(), flip("m3.example.net.", "drill"), cluster.WaitNone)
		check(f, err)
		c.Close()
		good = d.files["registers.json"]
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add(bytes.Replace(good, []byte(`"format":1`), []byte(`"format":2`), 1))
	for _, file := range []string{"", "null", "{}", `{"registers":{"format":1,"sha256":"4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945","entries":[]}}`} {
		f.Add([]byte(file))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		d := newDisk()
		d.files["registers.json"] = bytes.Clone(file)
		c, err := startAlone(one, authority, d)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		before := content(c.Registers())
		damaged, _ := c.Problem()
		r, err := c.Write(t.Context(), flip("m4.example.net.", "drill"), cluster.WaitNone)
		switch {
		case !damaged && err != nil:
			// The last version there is.
			if content(c.Registers()) != before {
				t.Fatalf("refused with %v, and changed", err)
			}
		case !damaged:
			if after := onDisk(t, d); !after.Holds(&r.Entry) || content(after) != content(c.Registers()) {
				t.Fatalf("the disk has\n%s", content(after))
			}
		default:
			now, _ := d.Read("registers.json")
			if before != "" || err == nil || !bytes.Equal(now, file) {
				t.Fatalf("damaged, with the registers\n%s, a write that says %v, and the file\n%s", before, err, now)
			}
		}
	})
}

func startAlone(id *trust.Identity, authority *trust.Authority, d cluster.Disk) (*cluster.Cluster, error) {
	return cluster.Start(cluster.Config{
		Name: id.Name, Role: cluster.RoleNode, Identity: id, Authority: authority, Disk: d, Log: quietLog{}, Policy: cluster.Policy{Signers: isNode},
	})
}
