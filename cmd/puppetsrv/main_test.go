package main

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	clog "github.com/coredns/coredns/plugin/pkg/log"
	"go.uber.org/goleak"

	"github.com/puppetsrv/puppetsrv/internal/release"
)

func TestMain(m *testing.M) {
	if err := dnsserver.SetDirectives(directives()); err != nil {
		panic(err)
	}
	dnsserver.Quiet = true
	caddy.Quiet = true
	clog.Discard()
	goleak.VerifyTestMain(m)
}

// puppetsrv runs directly before file: behind what works on others' answers.
func TestPlaceInTheChain(t *testing.T) {
	names := dnsserver.Directives // as TestMain set them
	at := slices.Index(names, "puppetsrv")
	if at < 0 || names[at+1] != "file" {
		t.Fatalf("puppetsrv is not directly before file: %v", names)
	}
	for _, ahead := range []string{"prometheus", "errors", "log", "acl", "tsig", "cache", "dnssec", "minimal", "transfer"} {
		if i := slices.Index(names, ahead); i < 0 || i > at {
			t.Errorf("%s is not ahead of puppetsrv: %v", ahead, names)
		}
	}
	for _, behind := range []string{"file", "secondary", "whoami"} {
		if slices.Index(names, behind) < at {
			t.Errorf("%s is not behind puppetsrv: %v", behind, names)
		}
	}
}

func TestEveryDirectiveHasItsPlugin(t *testing.T) {
	names := dnsserver.Directives // as TestMain set them
	for _, want := range strings.Fields(`acl any bind bufsize cache chaos debug dnssec errors file health local log loop
		metadata minimal multisocket nsid pprof prometheus puppetsrv ready reload root secondary shed sign tls transfer
		tsig view whoami`) {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not compiled in", want)
		}
	}
	for _, name := range names {
		if _, err := caddy.DirectiveAction("dns", name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if slices.Contains(names, "forward") {
		t.Error("forward is a directive, though an authoritative server has no use for it")
	}
}

// build makes the binary as `make build` does, from the checkout at dir.
func build(t *testing.T, dir, out string) {
	t.Helper()
	cmd := exec.Command("make", "build", "BIN="+out)
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, b)
	}
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBinary(t *testing.T) {
	bin := t.TempDir()
	build(t, root(t), bin)
	path := filepath.Join(bin, "puppetsrv")

	t.Run("static and stripped", func(t *testing.T) {
		f, err := elf.Open(path)
		if err != nil {
			t.Skipf("no ELF binary on this system: %v", err)
		}
		defer f.Close()
		for _, p := range f.Progs {
			if p.Type == elf.PT_INTERP {
				t.Error("it asks for a dynamic loader")
			}
		}
		if f.Section(".symtab") != nil || f.Section(".debug_info") != nil {
			t.Error("it has symbols")
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d bytes", fi.Size())
		if fi.Size() > 30<<20 {
			t.Errorf("%d bytes: something large was linked in", fi.Size())
		}
	})
	t.Run("reproducible", func(t *testing.T) {
		// From another directory, as on another machine.
		other := filepath.Join(t.TempDir(), "elsewhere")
		cmd := exec.Command("bash", "-c", `mkdir -p "$1" && git ls-files -co --exclude-standard -z | tar --null -T - -c --ignore-failed-read 2>/dev/null | tar -x -C "$1"`, "-", other)
		cmd.Dir = root(t)
		if b, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("copying the checkout: %v\n%s", err, b)
		}
		again := t.TempDir()
		build(t, other, again)
		if a, b := sum(t, path), sum(t, filepath.Join(again, "puppetsrv")); a != b {
			t.Errorf("two builds differ: %x and %x", a, b)
		}
	})
	t.Run("flags", func(t *testing.T) {
		for flag, want := range map[string]string{
			"-version": "puppetsrv-" + release.Version + " (CoreDNS-1.15.0)",
			"-plugins": "puppetsrv\n",
		} {
			out, err := exec.Command(path, flag).CombinedOutput()
			if err != nil || !bytes.Contains(out, []byte(want)) {
				t.Errorf("%s: %v\n%s\nwant %q in it", flag, err, out, want)
			}
		}
		out, err := exec.Command(path, "-conf", "no-such-file").CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte("no-such-file")) {
			t.Errorf("-conf no-such-file: %v\n%s", err, out)
		}
	})
}

func sum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}
