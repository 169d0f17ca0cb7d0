package cadir_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
)

func TestSetsThatVerify(t *testing.T) {
	t.Parallel()
	for name, make := range map[string]func(dir string){
		"self-signed":           func(dir string) { cadirtest.New(t, dir, cadirtest.Options{}) },
		"intermediate":          func(dir string) { cadirtest.New(t, dir, cadirtest.Options{Intermediate: true}) },
		"openssl":               func(dir string) { cadirtest.NewOpenSSL(t, dir, false, "m1.example.net", "agent1.example.net") },
		"openssl, intermediate": func(dir string) { cadirtest.NewOpenSSL(t, dir, true, "m1.example.net", "agent1.example.net") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "ca")
			make(dir)
			must(t, cadirtest.Check(dir))
			d := open(t, dir)
			e := d.Evidence(t.Context())
			if !e.Complete || e.Problem != "" || e.Sealed || e.Hash == "" || e.Signed == 0 || e.Mode != "hot" {
				t.Errorf("%+v", e)
			}
			if e.CRL == nil || e.CRL.Number != "1" || e.CRL.NextUpdate.Before(time.Now()) {
				t.Errorf("CRL %+v", e.CRL)
			}
			if data, _ := os.ReadFile(filepath.Join(dir, "serial")); e.Serial != string(data) {
				t.Errorf("serial %s, the file says %s", e.Serial, data)
			}
			must(t, d.CheckStart())
		})
	}
}

// What puppetserver and its tools leave is no problem.
func TestTolerated(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(s site){
		"a serial that was taken and not used":        func(s site) { must(t, os.WriteFile(s.Path("serial"), []byte("0100"), 0o644)) },
		"the setup command's serial":                  func(s site) { must(t, os.WriteFile(s.Path("serial"), []byte("004\n"), 0o644)) },
		"a certificate that is in the inventory only": func(s site) { must(t, os.Remove(s.Path("signed", "m1.example.net.pem"))) },
		"an inventory without it":                     func(s site) { must(t, os.WriteFile(s.Path("inventory.txt"), nil, 0o644)) },
		"an old inventory's head": func(s site) {
			must(t, os.WriteFile(s.Path("inventory.txt"), []byte("# Inventory of signed certificates\n# SERIAL NOT_BEFORE NOT_AFTER SUBJECT\n\n0x0001 2020-01-01T00:00:00GMT 2025-01-01T00:00:00GMT /CN=old\n"), 0o644))
		},
		"another software's serials": func(s site) {
			must(t, os.WriteFile(s.Path("inventory.txt"), []byte("0x8F1D2C3B4A5968778695A4B3C2D1E0FF 2020-01-01T00:00:00UTC 2025-01-01T00:00:00UTC /CN=x\n"), 0o644))
		},
		"no infrastructure files": func(s site) {
			for _, f := range []string{"infra_crl.pem", "infra_serials", "infra_inventory.txt", "ca_pub.pem"} {
				must(t, os.Remove(s.Path(f)))
			}
		},
		"temporary files": func(s site) {
			must(t, os.WriteFile(s.Path("signed", "x.pem123tmp"), []byte("half"), 0o644))
			must(t, os.WriteFile(s.Path("serial99tmp"), []byte("half"), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			change(s)
			look(t, open(t, s.path))
		})
	}
}

func TestSetsThatDoNot(t *testing.T) {
	t.Parallel()
	other := newSite(t)
	read := func(path string) []byte {
		data, err := os.ReadFile(path)
		must(t, err)
		return data
	}
	write := func(s site, name string, data []byte) { must(t, os.WriteFile(s.Path(name), data, 0o644)) }
	for _, c := range []struct {
		name   string
		change func(s site)
		want   string
	}{
		{"another CA's key", func(s site) { write(s, "ca_key.pem", read(other.Path("ca_key.pem"))) }, "ca_key.pem: it belongs to no certificate"},
		{"another CA's public key", func(s site) { write(s, "ca_pub.pem", read(other.Path("ca_pub.pem"))) }, "ca_pub.pem: it belongs"},
		{"another CA's CRL", func(s site) { write(s, "ca_crl.pem", read(other.Path("ca_crl.pem"))) }, "ca_crl.pem: list 1"},
		{"another CA's infrastructure CRL", func(s site) { write(s, "infra_crl.pem", read(other.Path("ca_crl.pem"))) }, "infra_crl.pem: list 1"},
		{"another CA's certificate in signed/", func(s site) { write(s, "signed/x.pem", read(other.Path("signed/m1.example.net.pem"))) }, "signed/x.pem: it is not signed by this CA"},
		{"a certificate under another name", func(s site) { write(s, "signed/x.pem", read(s.Path("signed/m1.example.net.pem"))) }, "signed/x.pem: it is the certificate of m1.example.net"},
		{"half a certificate", func(s site) {
			write(s, "signed/m1.example.net.pem", read(s.Path("signed/m1.example.net.pem"))[:200])
		}, "signed/m1.example.net.pem: no PEM certificate"},
		{"half a CRL", func(s site) { write(s, "ca_crl.pem", read(s.Path("ca_crl.pem"))[:200]) }, "ca_crl.pem: 1 of 1 PEM blocks in it are cut off"},
		{"half a key", func(s site) { write(s, "ca_key.pem", read(s.Path("ca_key.pem"))[:100]) }, "ca_key.pem: no PEM key"},
		{"an encrypted key", func(s site) {
			_, err := cadirtest.OpenSSL("pkey", "-in", s.Path("ca_key.pem"), "-aes128", "-passout", "pass:x", "-out", s.Path("k"))
			must(t, err)
			must(t, os.Rename(s.Path("k"), s.Path("ca_key.pem")))
		}, "ca_key.pem: the key is encrypted"},
		{"half an inventory", func(s site) {
			data := read(s.Path("inventory.txt"))
			write(s, "inventory.txt", data[:len(data)-30])
		}, "inventory.txt: line 1:"},
		{"an inventory of something else", func(s site) { write(s, "inventory.txt", []byte("a b c d\n")) }, "is no entry"},
		{"a serial that is issued", func(s site) { write(s, "serial", []byte("0003")) }, "serial: the next one is 0003, and 0003 is issued already"},
		{"a serial that the inventory has", func(s site) {
			write(s, "inventory.txt", []byte("0x00FF 2020-01-01T00:00:00UTC 2025-01-01T00:00:00UTC /CN=x\n"))
		}, "and 00FF is issued already"},
		{"an empty serial", func(s site) { write(s, "serial", nil) }, `serial: "" is no hexadecimal number`},
		{"a serial beyond 32 bits", func(s site) { write(s, "serial", []byte("80000000")) }, "serial: 80000000 is no serial"},
		{"a long serial", func(s site) { write(s, "serial", bytes.Repeat([]byte("0"), 100)) }, "64 are the most"},
		{"a link to elsewhere", func(s site) {
			must(t, os.Remove(s.Path("infra_inventory.txt")))
			must(t, os.Symlink("/etc/passwd", s.Path("infra_inventory.txt")))
		}, "infra_inventory.txt is no regular file"},
		{"a link in signed/", func(s site) { must(t, os.Symlink("/etc/passwd", s.Path("signed", "x.pem"))) }, "signed/x.pem is no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			d := open(t, s.path)
			look(t, d)
			c.change(s)
			for range 2 { // also when it was seen before
				e := d.Evidence(t.Context())
				if e.Complete || !strings.Contains(e.Problem, c.want) {
					t.Errorf("problem %q, want %q", e.Problem, c.want)
				}
			}
			if _, err := open(t, s.path).Look(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a first look: %v", err)
			}
		})
	}
}

func TestIntermediateChain(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "ca")
	cadirtest.New(t, dir, cadirtest.Options{Intermediate: true})
	data, err := os.ReadFile(filepath.Join(dir, "ca_crt.pem"))
	must(t, err)
	const end = "-----END CERTIFICATE-----\n"
	first := data[:bytes.Index(data, []byte(end))+len(end)]
	must(t, os.WriteFile(filepath.Join(dir, "ca_crt.pem"), first, 0o644))
	if _, err := open(t, dir).Look(t.Context()); err == nil || !strings.Contains(err.Error(), "the chain has to be whole") {
		t.Errorf("without its root: %v", err)
	}
	// A chain's lists without the one of the CA that signs.
	cadirtest.New(t, dir+"2", cadirtest.Options{Intermediate: true})
	data, err = os.ReadFile(dir + "2/ca_crl.pem")
	must(t, err)
	const endList = "-----END X509 CRL-----\n"
	must(t, os.WriteFile(dir+"2/ca_crl.pem", data[bytes.Index(data, []byte(endList))+len(endList):], 0o644))
	if _, err := open(t, dir+"2").Look(t.Context()); err == nil || !strings.Contains(err.Error(), "which signs") {
		t.Errorf("without its list: %v", err)
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	t.Parallel()
	required := []string{"ca_crl.pem", "ca_crt.pem", "ca_key.pem", "inventory.txt", "serial"}
	for _, name := range required {
		s := newSite(t)
		must(t, os.Remove(s.Path(name)))
		d := open(t, s.path)
		e := d.Evidence(t.Context())
		if e.Complete || !strings.Contains(e.Problem, "incomplete: "+name+" missing") {
			t.Errorf("without %s: %q", name, e.Problem)
		}
		if err := d.CheckStart(); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "would not start") {
			t.Errorf("without %s: %v", name, err)
		}
	}
	s := newSite(t)
	for _, name := range []string{"serial", "inventory.txt"} {
		must(t, os.Remove(s.Path(name)))
	}
	must(t, os.RemoveAll(s.Path("signed")))
	if e := open(t, s.path).Evidence(t.Context()); !strings.Contains(e.Problem, "incomplete: inventory.txt, serial, signed/ missing") {
		t.Error(e.Problem)
	}
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "ca")} {
		d := open(t, dir)
		e := d.Evidence(t.Context())
		if e.Complete || !e.Sealed || !strings.Contains(e.Problem, "there is no CA: ca_crl.pem, ca_crt.pem, ca_key.pem, inventory.txt, serial, signed/ are missing") {
			t.Errorf("%+v", e)
		}
		if err := d.CheckStart(); err == nil || !strings.Contains(err.Error(), "puppetserver would make a new CA") {
			t.Error(err)
		}
	}
}

// One more certificate costs the reading of three files.
func TestLookReadsWhatIsNew(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Fill(t, 50)
	d := open(t, s.path)
	was := look(t, d)
	if was.Signed != 51 {
		t.Errorf("%d signed", was.Signed)
	}
	reads := d.Reads()
	if look(t, d) != was || d.Reads() != reads {
		t.Error("a look at what is the same is not the same look")
	}
	s.Sign(t, "new.example.net")
	is := look(t, d)
	if is.Signed != 52 || is.Serial != was.Serial+1 || is.Hash == was.Hash || d.Reads() != reads+3 {
		t.Errorf("%d signed, serial %X, %d files read", is.Signed, is.Serial, d.Reads()-reads)
	}
	if first := look(t, open(t, s.path)); first.Hash != is.Hash {
		t.Error("a first look has another hash")
	}
	// Signed anew under the same name, cleaned, and put back: each shows.
	s.Sign(t, "new.example.net")
	again := look(t, d)
	if again.Signed != 52 || again.Hash == is.Hash {
		t.Error("a certificate was replaced, and that does not show")
	}
	must(t, os.Rename(s.Path("signed", "new.example.net.pem"), s.Path("x")))
	if set := look(t, d); set.Signed != 51 {
		t.Error("a certificate was removed, and that does not show")
	}
	must(t, os.Rename(s.Path("x"), s.Path("signed", "new.example.net.pem")))
	if set := look(t, d); set.Hash != again.Hash {
		t.Error("a certificate was put back, and that does not show")
	}
}

// What is written in place, with the same size, shows in a whole look.
func TestVerifyFindsDamageInPlace(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := open(t, s.path)
	time.Sleep(150 * time.Millisecond) // so that the directory's time is believed
	look(t, d)
	look(t, d)
	f, err := os.OpenFile(s.Path("signed", "m1.example.net.pem"), os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("AAAAAAAAAAAAAAAA"), 100)
	must(t, err)
	must(t, f.Close())
	if _, err := d.Verify(t.Context()); err == nil {
		t.Error("damage does not show")
	}
}

// The hash is of names and contents alone.
func TestHash(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := open(t, s.path)
	hash := look(t, d).Hash
	must(t, d.Seal(t.Context()))
	must(t, os.WriteFile(s.Path("requests", "x.pem"), []byte("csr"), 0o644))
	must(t, os.Chmod(s.Path("inventory.txt"), 0o600))
	must(t, os.Chtimes(s.Path("ca_crl.pem"), time.Now(), time.Unix(0, 0)))
	for _, d := range []*cadir.Dir{d, open(t, s.path)} {
		set, err := d.Verify(t.Context())
		must(t, err)
		if set.Hash != hash {
			t.Error("a seal, a request, a mode or a time changes the hash")
		}
	}
	s.Revoke(t, 3)
	if look(t, d).Hash == hash {
		t.Error("a revocation does not")
	}
}

// A look that ends with its context says how far it came, and the next goes on there.
func TestLookGoesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.Fill(t, 300)
	d := open(t, s.path)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Look(ctx)
	var unfinished *cadir.UnfinishedError
	if !errors.As(err, &unfinished) || unfinished.Total != 301 || unfinished.Done != 0 {
		t.Fatalf("%v", err)
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Millisecond)
		e := d.Evidence(ctx)
		cancel()
		if e.Complete {
			break
		}
		if !strings.Contains(e.Problem, "not verified yet") || try > 1000 {
			t.Fatal(e.Problem, try)
		}
	}
	if n := d.Reads(); n > 301+8+5 {
		t.Errorf("%d reads", n)
	}
}

// A CA that signs all the time can be looked at at any time.
func TestLookWhileSigning(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if _, err := s.TrySign(fmt.Sprintf("agent%d.example.net", i)); err != nil {
				done <- err
				return
			}
		}
	}()
	d := open(t, s.path)
	last := uint64(0)
	for range 200 {
		set, err := d.Look(t.Context())
		if err != nil {
			t.Error(err)
			break
		}
		if set.Serial < last || set.Serial <= set.Highest {
			t.Errorf("serial %X after %X, %X issued", set.Serial, last, set.Highest)
		}
		last = set.Serial
	}
	close(stop)
	must(t, <-done)
}
