package gossip

import (
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func key(b byte) []byte { return []byte(strings.Repeat(string(rune(b)), 32)) }

func line(k []byte) string { return base64.StdEncoding.EncodeToString(k) + "\n" }

func keyFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gossip.key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// ids are the ring's, the primary one first, which alone may say so.
func ids(t *testing.T, k *KeyRing) (ids []string) {
	t.Helper()
	for i, key := range k.Keys() {
		if key.Primary != (i == 0) {
			t.Errorf("key %d: primary %v", i, key.Primary)
		}
		ids = append(ids, key.ID)
	}
	return ids
}

func TestAKeyFileIsRead(t *testing.T) {
	path := keyFile(t, "# made in spring\n\n"+line(key('a'))+"  "+line(key('b')[:16])+line(key('c')[:24]), 0o640)
	k, err := OpenKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	// SHA-256 of 32 times the letter a begins so.
	if got := ids(t, k); len(got) != 3 || got[0] != "3ba3f5f4" {
		t.Errorf("keys %q", got)
	}
}

func TestABadKeyFileIsRefusedWithARemedy(t *testing.T) {
	for _, c := range []struct {
		name, content string
		mode          os.FileMode
		want          []string
	}{
		{"empty", "# nothing\n", 0o600, []string{"no key in it", "head -c 32 /dev/urandom | base64"}},
		{"no base64", line(key('a')) + "secret!\n", 0o600, []string{"line 2", "no base64", "head -c 32"}},
		{"short", "c2hvcnQ=\n", 0o600, []string{"line 1", "5 bytes", "16, 24 or 32"}},
		{"twice", line(key('a')) + line(key('a')), 0o600, []string{"line 2", "twice"}},
		{"nine", func() (s string) {
			for i := range 9 {
				s += line(key(byte('a' + i)))
			}
			return
		}(), 0o600, []string{"line 9", "more than 8"}},
		{"readable by others", line(key('a')), 0o644, []string{"mode 0644", "chmod g-w,o-rwx "}},
		{"writable by the group", line(key('a')), 0o660, []string{"mode 0660", "chmod g-w,o-rwx "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := keyFile(t, c.content, c.mode)
			_, err := OpenKeyRing(path)
			if err == nil {
				t.Fatal("taken")
			}
			for _, w := range append(c.want, path) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("no %q in: %v", w, err)
				}
			}
			if strings.Contains(err.Error(), "secret!") {
				t.Errorf("the error repeats the file: %v", err)
			}
		})
	}
	_, err := OpenKeyRing(filepath.Join(t.TempDir(), "none"))
	if err == nil || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "head -c 32") {
		t.Errorf("no file: %v", err)
	}
}

func TestARotationIsDurable(t *testing.T) {
	dir := t.TempDir()
	file := keyFile(t, line(key('a')), 0o600)
	path := filepath.Join(dir, "link")
	if err := os.Symlink(file, path); err != nil {
		t.Fatal(err)
	}
	k, err := OpenKeyRing(path)
	if err != nil {
		t.Fatal(err)
	}
	a := k.Keys()[0].ID
	holds := func(want ...string) {
		t.Helper()
		if got := ids(t, k); !slices.Equal(got, want) {
			t.Errorf("the ring has %q, want %q", got, want)
		}
		again, err := OpenKeyRing(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := ids(t, again); !slices.Equal(got, want) {
			t.Errorf("the file has %q, want %q", got, want)
		}
		var live []string
		for _, key := range k.ring.GetKeys() {
			live = append(live, keyID(key))
		}
		if live[0] != want[0] || len(live) != len(want) {
			t.Errorf("memberlist has %q, want %q", live, want)
		}
	}
	b, err := k.Add(key('b'))
	if err != nil {
		t.Fatal(err)
	}
	holds(a, b)
	if id, err := k.Add(key('b')); err != nil || id != b {
		t.Errorf("again: %q, %v", id, err)
	}
	holds(a, b)
	for range 2 {
		if err := k.Use(b); err != nil {
			t.Fatal(err)
		}
		holds(b, a)
	}
	if err := k.Remove(b); err == nil || !strings.Contains(err.Error(), "use another one first") {
		t.Errorf("removing the primary key: %v", err)
	}
	for range 2 {
		if err := k.Remove(a); err != nil {
			t.Fatal(err)
		}
		holds(b)
	}
	if err := k.Use(a); err == nil || !strings.Contains(err.Error(), b) {
		t.Errorf("an unknown key: %v", err)
	}
	if fi, err := os.Lstat(path); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", fi, err)
	}
}

// A disk that fails changes nothing, here or there.
func TestAFailingDiskLeavesTheRingAsItIs(t *testing.T) {
	k, err := OpenKeyRing(keyFile(t, line(key('a'))+line(key('b')), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	before := ids(t, k)
	full := errors.New("disk full")
	k.writeFile = func(string, []byte) error { return full }
	if _, err := k.Add(key('c')); !errors.Is(err, full) {
		t.Errorf("add: %v", err)
	}
	if err := k.Use(before[1]); !errors.Is(err, full) {
		t.Errorf("use: %v", err)
	}
	if err := k.Remove(before[1]); !errors.Is(err, full) {
		t.Errorf("remove: %v", err)
	}
	if got := ids(t, k); !slices.Equal(got, before) {
		t.Errorf("the ring has %q, want %q", got, before)
	}
	if got := k.ring.GetKeys(); len(got) != 2 || keyID(got[0]) != before[0] {
		t.Errorf("memberlist's ring has changed")
	}
}

// What an operator has written into the file meanwhile is not overwritten.
func TestAChangedKeyFileIsNotOverwritten(t *testing.T) {
	for _, content := range []string{line(key('x')), "damaged\n"} {
		path := keyFile(t, line(key('a')), 0o600)
		k, err := OpenKeyRing(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Add(key('b')); err == nil || !strings.Contains(err.Error(), "not changing the key ring") {
			t.Errorf("%q: %v", content, err)
		}
		if got, _ := os.ReadFile(path); string(got) != content {
			t.Errorf("the file was overwritten with %q", got)
		}
	}
}

func TestARingIsBounded(t *testing.T) {
	var keys [][]byte
	for i := range MaxKeys {
		keys = append(keys, key(byte('a'+i)))
	}
	k, err := NewKeyRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Add(key('z')); err == nil {
		t.Error("a ninth key")
	}
	if _, err := NewKeyRing(append(keys, key('z'))...); err == nil {
		t.Error("nine keys")
	}
	if _, err := k.Add([]byte("short")); err == nil {
		t.Error("a key of 5 bytes")
	}
	empty, err := NewKeyRing()
	if err != nil || !empty.empty() {
		t.Fatalf("%v", err)
	}
	if _, err := empty.Add(key('a')); err == nil {
		t.Error("a running pool would be cut off by its first key")
	}
}

// memberlist reads the slice that its own RemoveKey shifts; with -race this shows
// whether ours does.
func TestRemovingAKeyDoesNotRaceWithADecryption(t *testing.T) {
	k, err := NewKeyRing(key('a'), key('b'), key('c'), key('d'))
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				for _, key := range k.ring.GetKeys() {
					if len(key) != 32 {
						t.Error("no key")
					}
				}
			}
		})
	}
	for range 200 {
		b := k.Keys()[1].ID
		if err := k.Remove(b); err != nil {
			t.Error(err)
		}
		if got := k.Keys()[0].ID; keyID(k.ring.GetPrimaryKey()) != got {
			t.Error("another key encrypts")
		}
		for _, c := range "bcd" {
			if _, err := k.Add(key(byte(c))); err != nil {
				t.Error(err)
			}
		}
	}
	close(stop)
	readers.Wait()
}

func TestAGeneratedKeyFits(t *testing.T) {
	a, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := Generate()
	if k, err := NewKeyRing(a, b); err != nil || len(k.Keys()) != 2 {
		t.Errorf("%v", err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("# c\n" + line(key('a'))))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys("f", data)
		if err == nil && (len(keys) == 0 || len(keys) > MaxKeys) {
			t.Errorf("%d keys", len(keys))
		}
		for _, k := range keys {
			if checkKey(k) != nil {
				t.Errorf("a key of %d bytes", len(k))
			}
		}
	})
}
