package cadir_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/cadir"
	"github.com/puppetsrv/puppetsrv/internal/cadir/cadirtest"
)

func sealedNow(t *testing.T, d *cadir.Dir) bool {
	t.Helper()
	is, err := d.Sealed()
	must(t, err)
	return is
}

func TestSealAndUnseal(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	must(t, os.Chmod(s.Path("serial"), 0o640))
	d := open(t, s.path)
	before := look(t, d)
	stat, err := os.Stat(s.Path("serial"))
	must(t, err)
	for range 2 {
		must(t, d.Seal(t.Context()))
		if !sealedNow(t, d) || !d.Evidence(t.Context()).Sealed {
			t.Fatal("it is not sealed")
		}
		if _, err := s.TrySign("x.example.net"); err == nil {
			t.Fatal("a sealed CA signs")
		}
		if set := look(t, d); set.Hash != before.Hash || set.Serial != before.Serial {
			t.Error("the seal changed the set")
		}
		if f, _ := look(t, d).File("serial"); f.Mode != 0o640 {
			t.Errorf("the serial's mode is to be %o", f.Mode)
		}
	}
	d = open(t, s.path) // the mode is known after a restart too
	for range 2 {
		must(t, d.Unseal(t.Context()))
		if sealedNow(t, d) {
			t.Fatal("it is sealed")
		}
	}
	after, err := os.Stat(s.Path("serial"))
	must(t, err)
	if after.Mode() != stat.Mode() || !after.ModTime().Equal(stat.ModTime()) {
		t.Errorf("the serial has %v, %v and had %v, %v", after.Mode(), after.ModTime(), stat.Mode(), stat.ModTime())
	}
	if n := s.Sign(t, "x.example.net"); n != before.Serial {
		t.Errorf("signed as %X", n)
	}
}

// The real thing: puppetserver's user is another one, and tries to read.
func TestSealBindsAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("this needs root")
	}
	nobody, err := user.Lookup("nobody")
	must(t, err)
	uid, err := strconv.Atoi(nobody.Uid)
	must(t, err)
	gid, err := strconv.Atoi(nobody.Gid)
	must(t, err)
	base, err := os.MkdirTemp("", "cadir")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(base) })
	must(t, os.Chmod(base, 0o755))
	s := site{path: filepath.Join(base, "ca")}
	s.CA = cadirtest.New(t, s.path, cadirtest.Options{})
	must(t, filepath.Walk(s.path, func(path string, _ os.FileInfo, err error) error {
		if err == nil {
			err = os.Chown(path, uid, gid)
		}
		return err
	}))
	// The test program itself, where nobody can run it.
	self := filepath.Join(base, "self")
	data, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(self, data, 0o755))
	reads := func() bool {
		cmd := exec.Command(self, "read-as-child", s.Path("serial"))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		err := cmd.Run()
		var exit *exec.ExitError
		if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 3) {
			t.Fatal(err)
		}
		return err == nil
	}
	owner := func() (uint32, os.FileMode) {
		fi, err := os.Stat(s.Path("serial"))
		must(t, err)
		return fi.Sys().(*syscall.Stat_t).Uid, fi.Mode()
	}
	d, err := cadir.Open(s.path, cadir.Options{Owner: "nobody"})
	must(t, err)
	if !reads() || sealedNow(t, d) {
		t.Fatal("it cannot read what is not sealed")
	}
	must(t, d.Seal(t.Context()))
	if owner, mode := owner(); reads() || !sealedNow(t, d) || owner != 0 || mode != 0o600 {
		t.Fatalf("sealed: it reads %v; owner %d, mode %o", reads(), owner, mode)
	}
	if _, _, err := d.BumpSerial(t.Context(), "1.1.ns1", 0); err != nil || reads() {
		t.Fatalf("moved: it reads %v, %v", reads(), err)
	}
	must(t, d.Unseal(t.Context()))
	if owner, mode := owner(); !reads() || int(owner) != uid || mode != 0o644 {
		t.Fatalf("unsealed: it reads %v; owner %d, mode %o", reads(), owner, mode)
	}
	for mode, sealed := range map[os.FileMode]bool{0o600: true, 0o640: false, 0o604: false, 0o000: true} {
		must(t, os.Chown(s.Path("serial"), 0, gid))
		must(t, os.Chmod(s.Path("serial"), mode))
		if sealedNow(t, d) != sealed || sealed && reads() {
			t.Errorf("root's, group's, mode %o: sealed %v, and it reads %v", mode, sealedNow(t, d), reads())
		}
	}
}

// Whatever is cut off, the serial is there, and the same.
func TestSealSurvivesACrashAnywhere(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"seal", "unseal", "bump"} {
		for at := 1; ; at++ {
			s := newSite(t)
			d := open(t, s.path)
			serial := look(t, d).Serial
			if what != "seal" {
				must(t, d.Seal(t.Context()))
			}
			do := func(d *cadir.Dir) error {
				switch what {
				case "seal":
					return d.Seal(t.Context())
				case "unseal":
					return d.Unseal(t.Context())
				}
				_, _, err := d.BumpSerial(t.Context(), "1.1.ns1", 0)
				return err
			}
			steps := d.CrashAt(at)
			err := do(d)
			if err == nil {
				if *steps != at-1 {
					t.Errorf("%s: %d steps, no crash at %d", what, *steps, at)
				}
				break
			}
			if !errors.Is(err, cadir.ErrCrash) {
				t.Fatal(err)
			}
			must(t, cadirtest.Check(s.path))
			d = open(t, s.path)
			if what == "bump" && !sealedNow(t, d) {
				t.Errorf("bump crashed at %d: it is not sealed", at)
			}
			must(t, do(d))
			want := serial
			if what == "bump" {
				want += cadir.DefaultGap
			}
			if set := look(t, d); set.Serial != want {
				t.Errorf("%s crashed at %d: serial %X, want %X", what, at, set.Serial, want)
			}
			if is := sealedNow(t, d); is != (what != "unseal") {
				t.Errorf("%s crashed at %d: sealed %v", what, at, is)
			}
		}
	}
}

// Requests that are being answered while it is sealed end before Seal returns, or after
// Unseal; and no serial is lost.
func TestSealAgainstASigningServer(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := open(t, s.path)
	var signed atomic.Uint64
	stop, done := make(chan struct{}), make(chan struct{})
	seen := make(map[uint64]bool)
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if n, err := s.TrySign(fmt.Sprintf("agent%d.example.net", i)); err == nil {
				if seen[n] {
					t.Errorf("serial %X twice", n)
				}
				seen[n] = true
				signed.Store(n)
			}
		}
	}()
	for range 5 {
		before := signed.Load()
		for signed.Load() < before+3 {
			time.Sleep(time.Millisecond)
		}
		must(t, d.Seal(t.Context()))
		n := signed.Load()
		set := look(t, d)
		time.Sleep(50 * time.Millisecond) // in which nothing may happen
		if signed.Load() != n || set.Serial != n+1 || look(t, d).Hash != set.Hash {
			t.Errorf("sealed at %X, next %X, and %X was signed", n, set.Serial, signed.Load())
		}
		must(t, d.Unseal(t.Context()))
	}
	close(stop)
	<-done
}

func TestBumpSerial(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := open(t, s.path)
	bump := func(stamp string, gap uint64) (from, to uint64) {
		t.Helper()
		from, to, err := d.BumpSerial(t.Context(), stamp, gap)
		must(t, err)
		return from, to
	}
	refused := func(stamp string, gap uint64) {
		t.Helper()
		was, _ := os.ReadFile(s.Path("serial"))
		if _, _, err := d.BumpSerial(t.Context(), stamp, gap); err == nil {
			t.Error("it is not refused")
		}
		if is, _ := os.ReadFile(s.Path("serial")); string(is) != string(was) {
			t.Errorf("the serial is %s, and was %s", is, was)
		}
	}
	refused("1.1.ns1", 0) // not sealed
	must(t, d.Seal(t.Context()))
	refused("", 0)
	refused("1.1.ns1", cadir.MaxSerial)
	if from, to := bump("1.1.ns1", 0); from != 4 || to != 4+1000 {
		t.Errorf("from %d to %d", from, to)
	}
	d = open(t, s.path)
	if from, to := bump("1.1.ns1", 0); from != 1004 || to != 1004 {
		t.Errorf("again: from %d to %d", from, to)
	}
	must(t, d.Unseal(t.Context()))
	if n := s.Sign(t, "x.example.net"); n != 1004 {
		t.Errorf("signed as %d", n)
	}
	if from, to := bump("1.1.ns1", 0); from != 1005 || to != 1005 { // open already: nothing to do
		t.Errorf("again: from %d to %d", from, to)
	}
	must(t, d.Seal(t.Context()))
	if from, to := bump("1.2.ns1", 16); from != 1005 || to != 1021 {
		t.Errorf("from %d to %d", from, to)
	}
	// A backup of the serial was put back: the move for this version is made again.
	must(t, os.Chmod(s.Path("serial"), 0o600))
	must(t, os.WriteFile(s.Path("serial"), []byte("03ED"), 0o600))
	must(t, d.Seal(t.Context()))
	if _, to := bump("1.2.ns1", 16); to != 1021 {
		t.Errorf("to %d", to)
	}
	must(t, os.WriteFile(s.path+".puppetsrv/bump.json", []byte("{"), 0o600))
	refused("1.3.ns1", 0)
}

// Requests that a sealed CA stored are in the way of those who sent them; others wait
// for their operator.
func TestStrayRequests(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	request := func(name string) { must(t, os.WriteFile(s.Path("requests", name+".pem"), []byte("csr"), 0o644)) }
	there := func(name string) bool {
		_, err := os.Stat(s.Path("requests", name+".pem"))
		return err == nil
	}
	d := open(t, s.path)
	request("pending")
	time.Sleep(20 * time.Millisecond) // times of files are those of a coarse clock
	must(t, d.Seal(t.Context()))
	time.Sleep(20 * time.Millisecond)
	request("stray")
	must(t, d.Unseal(t.Context()))
	if !there("pending") || there("stray") {
		t.Errorf("pending is there: %v; the stray: %v", there("pending"), there("stray"))
	}
	request("new")
	must(t, d.Unseal(t.Context()))
	if !there("new") {
		t.Error("a request to an open CA is gone")
	}
}
