//go:build linux

package puppet_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// patience is for one program; most take a second or two.
const patience = 2 * time.Minute

// host is a host with real addresses and an /etc of its own: the machine's Puppet and Facter run
// there, with their defaults, and see nothing of the machine's settings.
type host struct {
	*netns.Host
	etc  string // what it sees as /etc
	conf string // its puppet.conf
	base string // of Puppet's directories and of the modulepath
}

// puppet skips the test where Puppet is not installed.
func puppet(t *testing.T) *netns.Net {
	t.Helper()
	for _, name := range []string{"puppet", "facter"} {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("PUPPETSRV_PUPPET") == "required" {
				t.Fatalf("PUPPETSRV_PUPPET is required: %v", err)
			}
			t.Skipf("SKIPPED: the module is tested with Puppet's own programs: %v", err)
		}
	}
	return netns.New(t)
}

// newHost adds a host with an IPv4 address.
func newHost(t *testing.T, n *netns.Net, name, address string) *host {
	t.Helper()
	base := t.TempDir()
	h := &host{Host: n.Host(name, address), etc: base + "/etc", conf: base + "/conf/puppet.conf", base: base}
	module, err := filepath.Abs(".")
	if err == nil {
		err = errors.Join(os.MkdirAll(base+"/modules", 0o755), os.Symlink(module, base+"/modules/puppetsrv"),
			os.MkdirAll(base+"/conf", 0o755), os.MkdirAll(base+"/machine", 0o755), h.makeEtc())
	}
	if err != nil {
		t.Fatal(err)
	}
	h.Bind("/etc", base+"/machine")
	h.Bind(h.etc, "/etc")
	return h
}

// makeEtc links all of the machine's /etc but what is the host's own, and what Puppet and Facter read.
func (h *host) makeEtc() error {
	entries, err := os.ReadDir("/etc")
	if err == nil {
		err = os.Mkdir(h.etc, 0o755)
	}
	for _, e := range entries {
		switch e.Name() {
		case "hosts", "resolv.conf", "hostname", "puppet", "puppetlabs", "facter", "puppetsrv":
			continue
		}
		err = errors.Join(err, os.Symlink(h.base+"/machine/"+e.Name(), filepath.Join(h.etc, e.Name())))
	}
	return errors.Join(err,
		os.WriteFile(h.etc+"/hosts", []byte("127.0.0.1 localhost\n"+h.Addr.String()+" "+h.Name+".example.net "+h.Name+"\n"), 0o644),
		// Nobody listens there: a name fails at once.
		os.WriteFile(h.etc+"/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644))
}

// ip runs iproute2's ip on the host.
func (h *host) ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", append([]string{"-n", h.Namespace()}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// write writes a file below the host's /etc; an absolute path is taken as it is.
func (h *host) write(t *testing.T, name, content string) {
	t.Helper()
	path := name
	if !filepath.IsAbs(name) {
		path = filepath.Join(h.etc, name)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// result is what a program has said, without colours, and its exit code.
type result struct {
	out, err string
	code     int
}

// run runs a program on the host to its end.
func (h *host) run(t *testing.T, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := h.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "HOME="+h.base)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if e := (*exec.ExitError)(nil); err != nil && !errors.As(err, &e) || ctx.Err() != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, &stderr)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// puppet runs a subcommand of puppet with directories of the host's own.
func (h *host) puppet(t *testing.T, subcommand string, args ...string) result {
	t.Helper()
	all := append(strings.Fields(subcommand), "--confdir", h.base+"/conf", "--vardir", h.base+"/var", "--rundir", h.base+"/run",
		"--logdir", h.base+"/log", "--codedir", h.base+"/code", "--modulepath", h.base+"/modules", "--color", "false")
	return h.run(t, "puppet", append(all, args...)...)
}

// apply applies a manifest and wants an exit code: with --detailed-exitcodes 0 is nothing to do,
// 2 changes, 1 no catalog, 4 and 6 failures.
func (h *host) apply(t *testing.T, code int, manifest string, args ...string) string {
	t.Helper()
	r := h.puppet(t, "apply", append([]string{"--detailed-exitcodes", "--execute", manifest}, args...)...)
	if r.code != code {
		t.Fatalf("puppet apply ended with %d, want %d:\n%s%s\n%s", r.code, code, r.out, r.err, manifest)
	}
	return r.out + r.err
}

// wantLines wants each text in what was said.
func wantLines(t *testing.T, said string, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("not said: %s\nbut:\n%s", text, said)
		}
	}
}
