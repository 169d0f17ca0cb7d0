//go:build linux

package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/netns"
)

// private are the directories of which each host has its own. /etc begins as the machine's
// with the packages' defaults, the others with the directories that packages make.
var private = []string{"/etc", "/run", "/var/lib", "/var/log", "/var/cache"}

// Host is a host of the stack.
type Host struct {
	*netns.Host
	Short      string // the first label of its name
	Datacenter string // "" for the secondary

	s        *Stack
	dir      string
	boots    int
	services []string // that its boot starts, in this order
}

// newHost makes a host with its directories.
func (s *Stack) newHost(short, datacenter, address string) (*Host, error) {
	if h := s.hosts[short]; h != nil {
		return nil, fmt.Errorf("there is a host %s", short)
	}
	h := &Host{Short: short, Datacenter: datacenter, s: s, dir: filepath.Join(s.Dir, "hosts", short)}
	for _, dir := range private {
		if err := os.MkdirAll(filepath.Dir(h.Path(dir)), 0o755); err != nil {
			return nil, err
		}
	}
	if out, err := exec.Command("cp", "-a", "/etc", h.Path("/etc")).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copying /etc for %s: %w: %s", short, err, out)
	}
	for _, d := range []struct{ path, owner string }{
		{"/run/lab", "root"}, {"/run/puppetserver", "puppet"}, {"/run/puppetdb", "puppetdb"}, {"/run/postgresql", "postgres"},
		{"/run/puppetsrv", "root"}, {"/run/puppetsrv-member", "root"}, {"/run/nsd", "nsd"}, {"/run/puppet", "root"},
		{"/var/lib/puppet", "puppet"}, {"/var/lib/puppet/ssl", "puppet"}, {"/var/lib/puppetserver", "puppet"}, {"/var/lib/puppetserver/jruby-gems", "puppet"}, {"/var/lib/puppetdb", "puppetdb"},
		{"/var/lib/postgresql", "postgres"}, {"/var/lib/puppetsrv", "root"}, {"/var/lib/puppetsrv-member", "root"}, {"/var/lib/nsd", "nsd"}, {"/var/lib/lab", "root"},
		{"/var/log/lab", "root"}, {"/var/log/puppet", "puppet"}, {"/var/log/puppetserver", "puppet"}, {"/var/log/puppetdb", "puppetdb"}, {"/var/log/postgresql", "postgres"},
		{"/var/cache/puppet", "puppet"},
		{"/etc/puppetsrv", "root"}, {"/etc/puppetdb/ssl", "puppetdb"}, {"/etc/lab", "root"},
	} {
		if err := h.mkdir(d.path, d.owner); err != nil {
			return nil, err
		}
	}
	h.Host = s.net.Host(short+"."+Domain, address)
	for _, dir := range private {
		h.Bind(h.Path(dir), dir)
	}
	boot := filepath.Join(h.dir, "boot_id")
	if err := h.newBoot(boot); err != nil {
		return nil, err
	}
	h.Bind(boot, "/proc/sys/kernel/random/boot_id")
	for path, content := range map[string]string{
		"/etc/hostname":    short + "\n",
		"/etc/lab/env":     "PATH=" + s.Bin + ":$PATH\n",
		"/etc/lab/service": serviceScript,
	} {
		if err := h.Write(path, content, 0o755, "root"); err != nil {
			return nil, err
		}
	}
	s.hosts[short] = h
	s.order = append(s.order, h)
	return h, nil
}

// Path is where the machine has a file of one of the host's own directories.
func (h *Host) Path(inside string) string {
	return filepath.Join(h.dir, strings.TrimPrefix(inside, "/var/")) // /var/lib is lib
}

func (h *Host) mkdir(inside, owner string) error {
	if err := os.MkdirAll(h.Path(inside), 0o755); err != nil {
		return err
	}
	return h.own(inside, owner)
}

// own gives a file to a user and the user's group.
func (h *Host) own(inside, owner string) error {
	id, err := lookup(owner)
	if err != nil {
		return err
	}
	return os.Lchown(h.Path(inside), id.uid, id.gid)
}

// Write replaces a file of the host by rename, with its directories.
func (h *Host) Write(inside, content string, mode os.FileMode, owner string) error {
	path := h.Path(inside)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	next := path + ".lab-new"
	if err := os.WriteFile(next, []byte(content), mode); err != nil {
		return fmt.Errorf("%s: %w", h.Short, err)
	}
	if err := errors.Join(os.Chmod(next, mode), h.own(inside+".lab-new", owner)); err != nil {
		return fmt.Errorf("%s: %w", h.Short, err)
	}
	return os.Rename(next, path)
}

// Read is a file of the host; "" if it cannot be read.
func (h *Host) Read(inside string) string {
	data, err := os.ReadFile(h.Path(inside))
	if err != nil {
		return ""
	}
	return string(data)
}

// Result is how a command ended.
type Result struct {
	Host string
	Args []string
	Out  string // its standard output
	Err  string // its standard error
	Code int    // -1: it did not exit by itself
	// Began and Took are when it was started, and for how long it ran.
	Began time.Time
	Took  time.Duration
}

// OK reports whether it exited with 0.
func (r Result) OK() bool { return r.Code == 0 }

// Error is nil if it exited with 0, and else all that is to be said.
func (r Result) Error() error {
	if r.OK() {
		return nil
	}
	return errors.New(r.String())
}

func (r Result) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s on %s: exit code %d after %v\n%s%s", strings.Join(r.Args, " "), r.Host, r.Code, r.Took.Round(time.Millisecond), tail(r.Out), tail(r.Err)))
}

// tail is the end of a text that may be long.
func tail(text string) string {
	const most = 6000
	if len(text) > most {
		return "...\n" + text[len(text)-most:]
	}
	return text
}

// Run runs a command on the host until its end, or that of the context, when all of its
// process group is killed.
func (h *Host) Run(ctx context.Context, args ...string) Result {
	p := h.Start(ctx, args...)
	return p.Wait()
}

// Process is a command that runs.
type Process struct {
	cmd    *exec.Cmd
	result Result
	out    bytes.Buffer
	err    bytes.Buffer
	done   chan struct{}
}

// Start starts a command on the host. A context that ends kills its process group.
func (h *Host) Start(ctx context.Context, args ...string) *Process {
	p := &Process{result: Result{Host: h.Short, Args: args, Code: -1}, done: make(chan struct{})}
	p.cmd = h.CommandContext(ctx, args[0], args[1:]...)
	p.cmd.Env = h.environ()
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.err
	p.cmd.Cancel = func() error { return syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) }
	p.cmd.WaitDelay = time.Second // what it started may hold its output
	p.result.Began = time.Now()
	if err := p.cmd.Start(); err != nil {
		p.result.Err = err.Error()
		close(p.done)
		return p
	}
	go func() {
		defer close(p.done)
		err := p.cmd.Wait()
		p.result.Took = time.Since(p.result.Began)
		p.result.Out, p.result.Err = p.out.String(), p.err.String()
		if p.cmd.ProcessState != nil {
			p.result.Code = p.cmd.ProcessState.ExitCode()
		}
		if p.result.Code < 0 && err != nil {
			p.result.Err += err.Error()
		}
	}()
	return p
}

// Done is closed when the command has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the command.
func (p *Process) Wait() Result {
	<-p.done
	return p.result
}

// environ is that of a shell of root on the host, and nothing of whoever started the lab.
func (h *Host) environ() []string {
	return []string{
		"PATH=" + h.s.Bin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=dumb", "LAB_HOST=" + h.Short,
	}
}

// newBoot gives the host another name for its boot, as its kernel would have.
func (h *Host) newBoot(path string) error {
	h.boots++
	// In place: it is this very file that the host's processes see.
	return os.WriteFile(path, fmt.Appendf(nil, "00000000-0000-4000-8000-%04d%08x\n", h.boots, os.Getpid()), 0o444)
}

// Off takes the power from hosts, all at once: no process of theirs is left.
func (s *Stack) Off(hosts ...*Host) error { return netns.Kill(netHosts(hosts)...) }

// On gives hosts their power back: /run is empty, the boot has another id, and services
// start as their units are ordered. It returns when all have started or failed to.
func (s *Stack) On(ctx context.Context, hosts ...*Host) error {
	var all []func() error
	for _, h := range hosts {
		if err := h.newBoot(filepath.Join(h.dir, "boot_id")); err != nil {
			return err
		}
		if err := h.clearRun(); err != nil {
			return err
		}
		all = append(all, func() error { return h.StartServices(ctx, h.services...) })
	}
	return each(all...)
}

// clearRun empties /run but for its directories, which packages make at each boot.
func (h *Host) clearRun() error {
	return filepath.WalkDir(h.Path("/run"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		return os.Remove(path)
	})
}

// Cut drops all that hosts of one side send to those of the other, and back.
func (s *Stack) Cut(a, b []*Host) { s.net.Cut(netHosts(a), netHosts(b)) }

// Isolate drops all that a host and the others send each other.
func (s *Stack) Isolate(h *Host) {
	var others []*Host
	for _, o := range s.order {
		if o != h {
			others = append(others, o)
		}
	}
	s.Cut([]*Host{h}, others)
}

// Heal ends all cuts.
func (s *Stack) Heal() { s.net.Heal() }

func netHosts(hosts []*Host) (all []*netns.Host) {
	for _, h := range hosts {
		all = append(all, h.Host)
	}
	return all
}

// each runs all at once and waits for them.
func each(all ...func() error) error {
	errs := make(chan error, len(all))
	for _, f := range all {
		go func() { errs <- f() }()
	}
	var failed []error
	for range all {
		failed = append(failed, <-errs)
	}
	return errors.Join(failed...)
}
