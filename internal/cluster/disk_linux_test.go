package cluster_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cluster"
)

// Real directories that cannot be written: a write is refused and changes nothing,
// what others write holds and is not acknowledged, and when the directory is good
// again everything gets there by itself.
func TestADirectoryThatCannotBeWritten(t *testing.T) {
	filler := func(dir string) string { return filepath.Join(dir, "filler") }
	for _, tt := range []struct {
		name   string
		mounts bool // it needs a file system of its own, and so root
		spoil  func(t *testing.T, dir string)
		repair func(t *testing.T, dir string)
		want   string
	}{
		{
			name: "full", mounts: true, want: "no space left on device",
			spoil: func(t *testing.T, dir string) {
				f, err := os.Create(filler(dir))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				for _, err = f.Write(make([]byte, 4096)); err == nil; _, err = f.Write(make([]byte, 4096)) {
				}
				if !errors.Is(err, syscall.ENOSPC) {
					t.Fatal(err)
				}
			},
			repair: func(t *testing.T, dir string) { check(t, os.Remove(filler(dir))) },
		},
		{
			name: "read-only", mounts: true, want: "read-only file system",
			spoil: func(t *testing.T, dir string) {
				check(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			},
			repair: func(t *testing.T, dir string) { check(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, "")) },
		},
		{
			name: "removed", want: "no such file or directory",
			spoil:  func(t *testing.T, dir string) { check(t, os.Rename(dir, dir+".away")) },
			repair: func(t *testing.T, dir string) { check(t, os.Rename(dir+".away", dir)) },
		},
		{
			name: "a file in its place", want: "not a directory",
			spoil: func(t *testing.T, dir string) {
				check(t, os.Rename(dir, dir+".away"))
				check(t, os.WriteFile(dir, nil, 0o600))
			},
			repair: func(t *testing.T, dir string) {
				check(t, os.Remove(dir))
				check(t, os.Rename(dir+".away", dir))
			},
		},
		{
			name: "a directory in the file's place", want: "file exists",
			spoil: func(t *testing.T, dir string) {
				check(t, os.Rename(filepath.Join(dir, "registers.json"), filepath.Join(dir, "away")))
				check(t, os.MkdirAll(filepath.Join(dir, "registers.json", "x"), 0o700))
			},
			repair: func(t *testing.T, dir string) {
				check(t, os.RemoveAll(filepath.Join(dir, "registers.json")))
				check(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "registers.json")))
			},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			check(t, os.Mkdir(dir, 0o700))
			if tt.mounts {
				if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
					t.Skipf("SKIPPED: a file system cannot be mounted here, run it as root: %v", err)
				}
				t.Cleanup(func() { check(t, syscall.Unmount(dir, 0)) })
			}
			bubble(t, 1, func(t *testing.T, s *site) {
				s.log = quietLog{}
				two := s.startOn("ns2.example.net", stateDir(dir))
				s.publish()
				s.met()
				s.write("ns2.example.net", flip("m3.example.net.", "drill"))
				path := filepath.Join(dir, "registers.json")
				before, err := os.ReadFile(path)
				check(t, err)
				held := content(two.Registers())

				tt.spoil(t, dir)
				if _, err := two.Write(t.Context(), flip("m4.example.net.", "drill"), cluster.WaitNone); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
					t.Errorf("the write says %v, want %q", err, tt.want)
				}
				if got := content(two.Registers()); got != held {
					t.Errorf("a refused write has changed\n%s to\n%s", held, got)
				}
				if damaged, err := two.Problem(); damaged || err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("damaged %v, problem %v, want %q", damaged, err, tt.want)
				}
				r := s.write("ns1.example.net", flip("m5.example.net.", "drill"))
				if r.Met || len(r.Answers) != 1 || r.Answers[0].Err == nil || !strings.Contains(r.Answers[0].Err.Error(), tt.want) {
					t.Errorf("a write elsewhere: %+v", r.Answers)
				}
				if got := camaster(two); got != camaster(s.nodes["ns1.example.net"]) || !strings.HasPrefix(got, "m5") {
					t.Errorf("it holds %q", got)
				}
				time.Sleep(time.Minute)

				tt.repair(t, dir)
				if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
					t.Errorf("the file has changed: %v", err)
				}
				s.until("it is good again", 5*time.Second, func() bool { _, err := two.Problem(); return err == nil })
				s.write("ns2.example.net", flip("m6.example.net.", "drill"))
				if left, _ := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				s.crash("ns2.example.net")
				s.crash("ns1.example.net")
				if got := camaster(s.startOn("ns2.example.net", stateDir(dir))); !strings.HasPrefix(got, "m6.example.net. 0.3.") {
					t.Errorf("after a restart it holds %q", got)
				}
			})
		})
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
