package cadir_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
)

// pair is a camaster and a standby.
type pair struct {
	site
	from *cadir.Dir
	path string // of the standby's cadir
	to   *cadir.Dir
}

func newPair(t testing.TB) *pair {
	t.Helper()
	s := newSite(t)
	p := &pair{site: s, from: open(t, s.path), path: filepath.Join(t.TempDir(), "puppetserver", "ca")}
	p.restart(t)
	return p
}

// restart is a new process on the standby.
func (p *pair) restart(t testing.TB) {
	p.to = open(t, p.path)
	p.to.Follow(false)
}

// fetch brings all that is missing to the standby.
func (p *pair) fetch(t testing.TB) *cadir.Set {
	t.Helper()
	set := look(t, p.from)
	_, _ = p.to.Look(t.Context()) // as a puller does, to see whether it is the same
	missing, err := p.to.Missing(t.Context(), set.Files)
	must(t, err)
	for _, f := range missing {
		data, err := p.from.Read(set, f)
		must(t, err)
		must(t, p.to.Put(f, bytes.NewReader(data)))
	}
	return set
}

func (p *pair) sync(t testing.TB) cadir.Replacement {
	t.Helper()
	set := p.fetch(t)
	r, err := p.to.Replace(t.Context(), set.Files, set.Hash)
	must(t, err)
	p.equal(t)
	return r
}

// equal checks that the standby has what the camaster has, by other means than cadir's.
func (p *pair) equal(t testing.TB) {
	t.Helper()
	must(t, cadirtest.Check(p.path))
	if !sameFiles(t, p.Dir, p.path) {
		t.Fatal("the standby's files are not the camaster's")
	}
	if is, err := p.to.Sealed(); err != nil || !is {
		t.Fatalf("the standby is sealed: %v, %v", is, err)
	}
}

// sameFiles compares two cadirs but for requests.
func sameFiles(t testing.TB, a, b string) bool {
	read := func(dir string) map[string]string {
		files := make(map[string]string)
		must(t, filepath.Walk(dir, func(path string, fi os.FileInfo, err error) error {
			if err != nil || fi.IsDir() || strings.Contains(path, "/requests/") {
				return err
			}
			data, err := cadirtest.Read(path)
			rel, _ := filepath.Rel(dir, path)
			files[rel] = string(data)
			return err
		}))
		return files
	}
	x, y := read(a), read(b)
	if len(x) != len(y) {
		return false
	}
	for name, data := range x {
		if y[name] != data {
			return false
		}
	}
	return true
}

func kept(t testing.TB, path string) []string {
	t.Helper()
	dirs, err := filepath.Glob(path + ".before-*")
	must(t, err)
	return dirs
}

func TestReplace(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.Fill(t, 30)
	serial := p.Sign(t, "x.example.net")
	must(t, os.Chtimes(p.Path("ca_crl.pem"), time.Now(), time.Unix(1_700_000_000, 0)))
	if r := p.sync(t); r.Kept != "" || r.Files != 41 {
		t.Errorf("first: %+v", r)
	}
	if fi, err := os.Stat(filepath.Join(p.path, "ca_crl.pem")); err != nil || fi.ModTime().Unix() != 1_700_000_000 {
		t.Errorf("the CRL's time: %v, %v", fi.ModTime(), err)
	}
	if fi, err := os.Stat(filepath.Join(p.path, "ca_key.pem")); err != nil || fi.Mode() != 0o640 {
		t.Errorf("the key's mode: %v, %v", fi.Mode(), err)
	}
	if r := p.sync(t); r.Files != 0 {
		t.Errorf("the same: %+v", r)
	}
	p.Sign(t, "y.example.net")
	if r := p.sync(t); r.Files != 3 || r.Removed != 0 || r.Kept != "" {
		t.Errorf("one more: %+v", r)
	}
	p.Clean(t, "x.example.net", serial)
	if r := p.sync(t); r.Files != 2 || r.Removed != 1 || r.Kept != "" {
		t.Errorf("one less: %+v", r)
	}
	must(t, os.Remove(p.Path("infra_crl.pem")))
	if r := p.sync(t); r.Removed != 1 {
		t.Errorf("without an optional file: %+v", r)
	}
	// What was lost at the standby comes back.
	must(t, os.Remove(filepath.Join(p.path, "signed", "y.example.net.pem")))
	if r := p.sync(t); r.Files != 1 {
		t.Errorf("healed: %+v", r)
	}
	p.Renew(t)
	if r := p.sync(t); r.Kept == "" || len(kept(t, p.path)) != 1 || r.Kept != kept(t, p.path)[0] {
		t.Errorf("renewed: %+v", r)
	}
	must(t, cadirtest.Check(kept(t, p.path)[0]))
	if fi, err := os.Stat(filepath.Join(p.path, "requests")); err != nil || !fi.IsDir() {
		t.Error("there are no requests/")
	}
}

// Nothing is written where it must not be.
func TestReplaceRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, p *pair)
		want   string
	}{
		{"an open CA", func(t *testing.T, p *pair) { must(t, p.to.Unseal(t.Context())) }, "follows nobody"},
		{"one that was unsealed by another", func(t *testing.T, p *pair) {
			must(t, os.Chmod(filepath.Join(p.path, "serial"), 0o644))
		}, "the CA is not sealed"},
		{"one that follows nobody", func(t *testing.T, p *pair) { p.to.Unfollow() }, "follows nobody"},
		{"one that issued", func(t *testing.T, p *pair) {
			must(t, p.to.Unseal(t.Context()))
			own := *p.CA
			own.Dir = p.path
			own.Sign(t, "lost.example.net")
			must(t, p.to.Seal(t.Context()))
			p.to.Follow(false)
		}, "there is 1 certificate that it issued"},
		{"one that took a serial", func(t *testing.T, p *pair) {
			must(t, os.Chmod(filepath.Join(p.path, "serial"), 0o600))
			must(t, os.WriteFile(filepath.Join(p.path, "serial"), []byte("0FFF"), 0o600))
			must(t, p.to.Seal(t.Context()))
		}, "its next serial is 0FFF, and the camaster's 0005"},
		{"one that issued, behind a moved serial", func(t *testing.T, p *pair) {
			must(t, p.to.Unseal(t.Context()))
			own := *p.CA
			own.Dir = p.path
			own.Sign(t, "lost.example.net")
			must(t, p.to.Seal(t.Context()))
			must(t, os.WriteFile(p.Path("serial"), []byte("0FFF"), 0o644))
			p.to.Follow(false)
		}, "there is 1 certificate that it issued that the camaster does not know: 0x0004 /CN=lost.example.net"},
		{"one that revoked", func(t *testing.T, p *pair) {
			own := *p.CA
			own.Dir = p.path
			own.Revoke(t, 3)
		}, "there is 1 certificate that it revoked that the camaster has not: 0003"},
		{"another CA", func(t *testing.T, p *pair) {
			must(t, os.RemoveAll(p.path))
			cadirtest.New(t, p.path, cadirtest.Options{})
			must(t, p.to.Seal(t.Context()))
		}, "it has another key"},
		{"half a CA", func(t *testing.T, p *pair) { must(t, os.Remove(filepath.Join(p.path, "ca_key.pem"))) }, "it does not verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			p.sync(t)
			c.change(t, p)
			p.Sign(t, "x.example.net")
			before := t.TempDir()
			cadirtest.Copy(t, filepath.Join(before, "ca"), p.path)
			set := p.fetch(t)
			_, err := p.to.Replace(t.Context(), set.Files, set.Hash)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !sameFiles(t, filepath.Join(before, "ca"), p.path) {
				t.Error("it was written")
			}
			if strings.Contains(c.want, "follows") || strings.Contains(c.want, "sealed") {
				return
			}
			// An operator's rejoin replaces it, and keeps what was there.
			p.to.Follow(true)
			if r := p.sync(t); len(kept(t, p.path)) != 1 || r.Kept == "" || !sameFiles(t, filepath.Join(before, "ca"), r.Kept) {
				t.Errorf("%+v, kept %v", r, kept(t, p.path))
			}
		})
	}
}

// What a source sends is verified before anything is written.
func TestReplaceVerifies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(t *testing.T, set *cadir.Set, data map[string][]byte)
		want   string
	}{
		{"a file too few", func(_ *testing.T, _ *cadir.Set, data map[string][]byte) { delete(data, "ca_key.pem") }, "ca_key.pem missing"},
		{"no signed", func(_ *testing.T, _ *cadir.Set, data map[string][]byte) { delete(data, "signed/m1.example.net.pem") }, "the set has the hash"},
		{"an old serial", func(_ *testing.T, _ *cadir.Set, data map[string][]byte) { data["serial"] = []byte("0002") }, "issued already"},
		{"half an inventory", func(_ *testing.T, _ *cadir.Set, data map[string][]byte) {
			data["inventory.txt"] = data["inventory.txt"][:20]
		}, "inventory.txt: line 1"},
		{"half a certificate", func(_ *testing.T, _ *cadir.Set, data map[string][]byte) {
			data["signed/m1.example.net.pem"] = data["signed/m1.example.net.pem"][:99]
		}, "signed/m1.example.net.pem"},
		{"a foreign key", func(t *testing.T, _ *cadir.Set, data map[string][]byte) {
			data["ca_key.pem"], _ = os.ReadFile(newSite(t).Path("ca_key.pem"))
		}, "ca_key.pem: it belongs to no certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			for _, synced := range []bool{false, true} {
				set := look(t, p.from)
				data := make(map[string][]byte)
				for _, f := range set.Files {
					var err error
					data[f.Path], err = p.from.Read(set, f)
					must(t, err)
				}
				c.change(t, set, data)
				var files []cadir.File
				for path, content := range data {
					f := cadir.File{Path: path, Size: int64(len(content)), Mode: 0o644, Time: time.Now(), Sum: cadir.SumOf(content)}
					files = append(files, f)
					must(t, p.to.Put(f, bytes.NewReader(content)))
				}
				slices.SortFunc(files, func(a, b cadir.File) int { return strings.Compare(a.Path, b.Path) })
				hash := cadir.HashOf(files)
				if strings.Contains(c.want, "hash") {
					hash = set.Hash
				}
				if synced && hash == set.Hash {
					continue // it is there already
				}
				if _, err := p.to.Replace(t.Context(), files, hash); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("synced %v: %v, want %q", synced, err, c.want)
				}
				if _, err := os.Stat(p.path); !synced && err == nil {
					t.Error("something was written")
				}
				p.sync(t)
			}
		})
	}
	t.Run("names", func(t *testing.T) {
		p := newPair(t)
		for _, path := range []string{"../x", "signed/../x.pem", "signed/.x.pem", "signed/a/b.pem", "requests/x.pem", "x", "/serial", "signed/x", "signed/x y.pem"} {
			f := cadir.File{Path: path, Sum: cadir.SumOf(nil)}
			if err := p.to.Put(f, bytes.NewReader(nil)); err == nil {
				t.Errorf("%q is kept", path)
			}
			if _, err := p.to.Replace(t.Context(), []cadir.File{f}, cadir.HashOf([]cadir.File{f})); err == nil || !strings.Contains(err.Error(), "no file of a CA") {
				t.Errorf("%q: %v", path, err)
			}
		}
		f := cadir.File{Path: "serial", Size: 4, Sum: cadir.SumOf([]byte("0004"))}
		for _, data := range []string{"0005", "000", "00040"} {
			if err := p.to.Put(f, strings.NewReader(data)); err == nil {
				t.Errorf("%q is kept as %v", data, f)
			}
		}
	})
}

// Wherever it is cut off, the cadir verifies, and it is finished afterwards.
func TestReplaceSurvivesACrashAnywhere(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		synced bool
		change func(p *pair)
	}{
		{"the first", false, func(*pair) {}},
		{"more", true, func(p *pair) {
			for i := range 3 {
				p.Sign(t, fmt.Sprintf("new%d.example.net", i))
			}
			p.Clean(t, "new1.example.net", 5)
			p.Clean(t, "m1.example.net", 3)
		}},
		{"renewed", true, func(p *pair) { p.Renew(t); p.Sign(t, "new.example.net") }},
		{"rejoin", true, func(p *pair) {
			must(t, p.to.Unseal(t.Context()))
			own := *p.CA
			own.Dir = p.path
			own.Sign(t, "lost.example.net")
			must(t, p.to.Seal(t.Context()))
			p.to.Follow(true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			crashes := 0
			for at := 1; ; at++ {
				p := newPair(t)
				if c.synced {
					p.sync(t)
				}
				c.change(p)
				before := t.TempDir()
				if c.synced {
					cadirtest.Copy(t, filepath.Join(before, "ca"), p.path)
				}
				set := p.fetch(t)
				p.to.CrashAt(at)
				_, err := p.to.Replace(t.Context(), set.Files, set.Hash)
				if err == nil {
					break
				}
				if !errors.Is(err, cadir.ErrCrash) {
					t.Fatal(err)
				}
				crashes++
				p.restart(t)
				if c.synced {
					must(t, cadirtest.Check(p.path))
					look(t, p.to)
				} else if _, err := os.Stat(p.path); err == nil {
					must(t, cadirtest.Check(p.path))
				}
				if !sealedNow(t, p.to) {
					t.Fatalf("crashed at %d: it is not sealed", at)
				}
				// What is not finished is not opened.
				_, journal := os.Stat(p.path + ".puppetsrv/journal")
				if err := p.to.Unseal(t.Context()); journal == nil && err == nil {
					t.Fatalf("crashed at %d: it can be opened", at)
				} else if journal == nil && p.to.Evidence(t.Context()).Complete {
					t.Fatalf("crashed at %d: it counts as complete", at)
				} else if err == nil {
					must(t, p.to.Seal(t.Context()))
				}
				p.to.Follow(c.name == "rejoin")
				must(t, p.to.Recover(t.Context()))
				if journal == nil {
					p.equal(t)
				}
				p.sync(t)
				// Nobody's CA is gone.
				switch keeps := kept(t, p.path); {
				case c.name == "renewed" || c.name == "rejoin":
					if len(keeps) != 1 || !sameFiles(t, filepath.Join(before, "ca"), keeps[0]) {
						t.Fatalf("crashed at %d: kept %v", at, keeps)
					}
				case len(keeps) != 0:
					t.Fatalf("crashed at %d: kept %v", at, keeps)
				}
			}
			if crashes < 3 {
				t.Errorf("%d crashes", crashes)
			}
			t.Logf("%d crashes", crashes)
		})
	}
}

// What is damaged while it lies there is fetched again.
func TestDamagedFetch(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	set := p.fetch(t)
	f, _ := set.File("ca_key.pem")
	blob := filepath.Join(p.path+".puppetsrv", "files", f.Sum.String())
	must(t, os.WriteFile(blob, bytes.Repeat([]byte{0}, int(f.Size)), 0o600))
	if _, err := p.to.Replace(t.Context(), set.Files, set.Hash); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	p.sync(t)
}

// A damaged journal keeps the CA closed, and says what to do.
func TestDamagedJournal(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.sync(t)
	must(t, os.WriteFile(p.path+".puppetsrv/journal", []byte("{"), 0o600))
	if err := p.to.Unseal(t.Context()); err == nil {
		t.Error("it can be opened")
	}
	if err := p.to.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "remove the journal") {
		t.Error(err)
	}
}
