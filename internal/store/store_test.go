package store_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/puppetsrv/puppetsrv/internal/store"
)

var t0 = time.Unix(1_795_000_000, 0)

const patience = time.Minute // of a test that must not meet a slow disk

// The test binary is also the process that is killed; see TestKill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_WRITER"); dir != "" {
		write(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// write gives out serials for ever and prints each once it is on disk.
func write(dir string) {
	s := store.OpenSerials(dir)
	for i := 0; ; i++ {
		n := s.Next("example.net.", fmt.Sprint(time.Now().UnixNano()), 0, t0)
		if err := s.Sync(patience); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(n)
	}
}

// A process is killed while it writes, again and again: what it said was on disk
// is, and the file is never damaged.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	var last uint32
	for round := range 40 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "STORE_TEST_WRITER="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for range 1 + round%7 {
			var n uint32
			if _, err := fmt.Fscanln(out, &n); err != nil {
				t.Fatal(err)
			}
			if last != 0 && !store.Newer(n, last) {
				t.Fatalf("serial %d was given out after %d", n, last)
			}
			last = n
		}
		cmd.Process.Kill()
		// What it still printed was on disk too.
		for {
			var n uint32
			if _, err := fmt.Fscanln(out, &n); err != nil {
				break
			}
			last = n
		}
		cmd.Wait()
		if err := store.OpenSerials(dir).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) > 2 {
		t.Errorf("40 kills left %v", left)
	}
}

func TestNextSerial(t *testing.T) {
	now := uint32(t0.Unix())
	tests := []struct {
		name   string
		past   store.Serial
		known  bool
		hash   string
		file   uint32
		expect uint32
	}{
		{"unchanged content keeps its serial", store.Serial{Serial: 7, Hash: "a"}, true, "a", 0, 7},
		{"also if the zone file's is newer", store.Serial{Serial: 7, Hash: "a"}, true, "a", 9, 7},
		{"a change is one more", store.Serial{Serial: 7, Hash: "a"}, true, "b", 0, 8},
		{"or the zone file's", store.Serial{Serial: 7, Hash: "a"}, true, "b", 2026112201, 2026112201},
		{"but not an older one", store.Serial{Serial: 7, Hash: "a"}, true, "b", 3, 8},
		{"it wraps round, past 0", store.Serial{Serial: 1<<32 - 1, Hash: "a"}, true, "b", 0, 1},
		{"without a past it is the time", store.Serial{}, false, "a", 1, now},
		{"or the zone file's, if newer", store.Serial{}, false, "a", 2026112201, 2026112201},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := store.NextSerial(tt.past, tt.known, tt.hash, tt.file, t0, nil); got != tt.expect {
				t.Errorf("got %d, want %d", got, tt.expect)
			}
		})
	}
}

// Whatever happens to content, zone file and clock: the serial grows exactly
// when content changes and never goes back, also over restarts; after a crash it
// grows in any case.
func TestSerialsGrowExactlyWithContent(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			rt.Fatal(err)
		}
		s := store.OpenSerials(dir)
		var last uint32
		var hash string
		for range rapid.IntRange(1, 15).Draw(rt, "steps") {
			crashed := false
			switch rapid.SampledFrom([]string{"goes on", "restart", "crash"}).Draw(rt, "process") {
			case "restart":
				s.Close(patience)
				s = store.OpenSerials(dir)
			case "crash":
				s = store.OpenSerials(dir)
				crashed = true
			}
			next := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "content")
			clock := t0.Add(time.Duration(rapid.IntRange(-1e6, 1e6).Draw(rt, "clock")) * time.Second)
			// Within half the number space of the last: what is newer than newer is
			// no order (RFC 1982).
			file := last + uint32(rapid.Int32Range(-1<<30, 1<<20).Draw(rt, "file"))
			got := s.Next("example.net.", next, file, clock)
			if err := s.Sync(patience); err != nil {
				rt.Fatal(err)
			}
			switch {
			case hash == "":
			case crashed && !store.Newer(got, last):
				rt.Fatalf("after a crash the serial went from %d to %d", last, got)
			case crashed:
			case hash == next && got != last:
				rt.Fatalf("content is unchanged and the serial went from %d to %d", last, got)
			case hash != next && !store.Newer(got, last):
				rt.Fatalf("content changed and the serial went from %d to %d", last, got)
			}
			hash, last = next, got
		}
		s.Close(patience)
	})
}

func TestADamagedFileIsReportedAndLeftAlone(t *testing.T) {
	for name, content := range map[string]string{
		"empty": "", "no JSON": "{", "cut": `{"version":1,"zones":{"example.net.":{"ser`, "newer": `{"version":2}`, "another kind": `[1]`,
		"serial 0": `{"version":1,"zones":{"example.net.":{"serial":0,"hash":"a","reserved":9}}}`, "no hash": `{"version":1,"zones":{"example.net.":{"serial":5,"reserved":9}}}`,
		"beyond its reserve": `{"version":1,"zones":{"example.net.":{"serial":5,"hash":"a","reserved":4}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "serials.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			s := store.OpenSerials(dir)
			if !s.Damaged() || s.Err() == nil || !strings.Contains(s.Err().Error(), path) {
				t.Fatalf("damaged %v, err %v", s.Damaged(), s.Err())
			}
			if n := s.Next("example.net.", "a", 0, t0); n != uint32(t0.Unix()) {
				t.Errorf("serial %d", n)
			}
			if s.Sync(patience) == nil {
				t.Error("Sync does not say that nothing is durable")
			}
			if got, _ := os.ReadFile(path); string(got) != content {
				t.Errorf("the file was changed to %q", got)
			}
		})
	}
}

func TestADiskThatComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := store.OpenSerials(dir) // the directory is missing: every write fails
	n := s.Next("example.net.", "a", 0, t0)
	if s.Sync(patience) == nil {
		t.Fatal("written without a directory")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Sync(patience); err != nil {
		t.Fatal(err)
	}
	s.Close(patience)
	if got := store.OpenSerials(dir).Next("example.net.", "a", 0, t0); got != n {
		t.Errorf("read back %d, want %d", got, n)
	}
}

func TestConcurrentUse(t *testing.T) {
	s := store.OpenSerials(t.TempDir())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				s.Next(fmt.Sprintf("z%d.", i), fmt.Sprint(j), 0, t0)
				if err := s.Sync(patience); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.Close(patience)
}

func TestWriteFileLeavesTheOldOneWhenItFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := store.WriteFile(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "d", "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := store.WriteFile(filepath.Join(dir, "d"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	if err := store.WriteFile(path, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got, _ := store.ReadFile(path); string(got) != "new" {
		t.Errorf("got %q", got)
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if fi, _ := os.Stat(path); fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", fi.Mode())
	}
}

func TestLockDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	l, err := store.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.LockDir(dir); !errors.Is(err, store.ErrLocked) {
		t.Fatalf("locked twice: %v", err)
	}
	if err := l.Unlock(); err != nil {
		t.Fatal(err)
	}
	l, err = store.LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	l.Unlock()
}
