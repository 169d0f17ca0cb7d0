package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what should take a moment; this
// machine may be busy.
const patience = time.Minute

// bin is where TestMain has built the playground and the three commands, side by side
// as `make run` does.
var bin string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "playground")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	for _, build := range [][]string{
		slices.Concat([]string{"build", "-o", dir}, raceFlags, []string{"."}),
		{"build", "-o", dir, "../../cmd/puppetsrv", "../../cmd/puppetsrvctl", "../../cmd/puppetsrv-member"},
	} {
		if out, err := exec.Command("go", build...).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go %v: %v\n%s", build, err, out)
			return 1
		}
	}
	return m.Run()
}

// playground is a running one, at addresses that no other test uses.
type playground struct {
	t      *testing.T
	dir    string
	base   string // 127.x.y.
	cmd    *exec.Cmd
	output output
	exited chan struct{}
}

// freeBase is a -base at random, so that tests of several checkouts do not
// meet.
func freeBase(t *testing.T) string {
	t.Helper()
	base := fmt.Sprintf("127.%d.%d.", 64+rand.IntN(128), rand.IntN(256))
	conn, err := net.ListenPacket("udp", base+"1:0")
	if err != nil {
		t.Skipf("this system has no address %s1: %v", base, err)
	}
	conn.Close()
	return base
}

// start runs `playground` with a -dir and -base of its own before args, and without
// members: `-members` among args has them.
func start(t *testing.T, args ...string) *playground {
	t.Helper()
	return startAt(t, filepath.Join(t.TempDir(), "run"), freeBase(t), args...)
}

func startAt(t *testing.T, dir, base string, args ...string) *playground {
	t.Helper()
	return startFrom(t, "", nil, dir, base, args...)
}

// startFrom is startAt in a working directory, with more in the environment.
func startFrom(t *testing.T, wd string, env []string, dir, base string, args ...string) *playground {
	t.Helper()
	p := &playground{t: t, dir: dir, base: base, exited: make(chan struct{})}
	p.output.changed = sync.NewCond(&p.output.mu)
	args = append([]string{"-dir", dir, "-base", base + "0",
		"-dns-port", "10053", "-master-port", "18140", "-metrics-port", "19153", "-ready-port", "18181",
		"-gossip-port", "17946", "-admin-port", "18153", "-member-port", "18154", "-members=false"}, args...)
	p.cmd = exec.Command(filepath.Join(bin, "playground"), args...)
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.Dir, p.cmd.Env = wd, append(environ(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // so that a test can press Ctrl-C
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.exited)
		p.output.changed.Broadcast()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("output of %v:\n%s", p.cmd.Args[1:], p.output.String())
		}
	})
	return p
}

// environ is this process's without what make has put there, nor anything for
// puppetsrvctl.
func environ() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "MAKE") && !strings.HasPrefix(v, "MFLAGS") && !strings.HasPrefix(v, "PUPPETSRV_") {
			env = append(env, v)
		}
	}
	return env
}

// output is what the playground has printed so far.
type output struct {
	mu      sync.Mutex
	changed *sync.Cond
	buf     bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer o.changed.Broadcast()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// says waits until the playground has printed the text.
func (p *playground) says(text string) {
	p.t.Helper()
	late := time.AfterFunc(patience, p.output.changed.Broadcast)
	defer late.Stop()
	deadline := time.Now().Add(patience)
	p.output.mu.Lock()
	defer p.output.mu.Unlock()
	for !strings.Contains(p.output.buf.String(), text) {
		select {
		case <-p.exited:
			p.t.Fatalf("the playground has ended (%v) and did not say %q", p.cmd.ProcessState, text)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the playground does not say %q", text)
		}
		p.output.changed.Wait()
	}
}

// up waits until it is up.
func (p *playground) up() state {
	p.t.Helper()
	p.says("Stop with Ctrl-C")
	return p.state()
}

// ends waits for the end and returns the exit code.
func (p *playground) ends() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatal("the playground does not end")
	}
	return p.cmd.ProcessState.ExitCode()
}

// ask runs `playground -dir DIR args` to its end.
func (p *playground) ask(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "playground"), append([]string{"-dir", p.dir}, args...)...)
	cmd.Env = environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// leavesNothing checks that neither a process nor a file is left.
func (p *playground) leavesNothing(processes []process) {
	p.t.Helper()
	for _, process := range processes {
		if process.PID != 0 && alive(process.PID) {
			p.t.Errorf("%s (pid %d) still runs", process.Name, process.PID)
		}
	}
	if entries, err := os.ReadDir(p.dir); !errors.Is(err, os.ErrNotExist) {
		p.t.Errorf("the run directory is left: %v %v", entries, err)
	}
}

// state is playground.json as another tool reads it.
type state struct {
	Version   int       `json:"version"`
	Zone      string    `json:"zone"`
	Targets   string    `json:"targets"`
	Camaster  string    `json:"camaster"`
	Dir       string    `json:"dir"`
	CA        string    `json:"ca"`
	SSLDir    string    `json:"ssldir"`
	Operator  string    `json:"operator"`
	PID       int       `json:"pid"`
	Processes []process `json:"processes"`
}

type process struct {
	Role       string   `json:"role"`
	Name       string   `json:"name"`
	Host       string   `json:"host"`
	Service    string   `json:"service"`
	Datacenter string   `json:"datacenter"`
	Address    string   `json:"address"`
	Metrics    string   `json:"metrics"`
	Ready      string   `json:"ready"`
	Admin      []string `json:"admin"`
	Gossip     string   `json:"gossip"`
	CA         bool     `json:"ca"`
	CADir      string   `json:"cadir"`
	HostCRL    string   `json:"hostcrl"`
	PID        int      `json:"pid"`
	Start      string   `json:"start"`
}

func (p *playground) state() state {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "playground.json"))
	if err != nil {
		p.t.Fatal(err)
	}
	var s state
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&s); err != nil {
		p.t.Fatal(err)
	}
	return s
}

func (s state) process(name string) process {
	for _, p := range s.Processes {
		if p.Name == name {
			return p
		}
	}
	return process{}
}

// eventually waits for a condition that nothing announces.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// alive reports whether the process runs; one that only waits to be reaped does
// not.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		return len(fields) > 0 && fields[0] != "Z"
	}
	return syscall.Kill(pid, 0) == nil
}

// fakePuppetsrv is a script in place of the puppetsrv binary.
func fakePuppetsrv(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "puppetsrv")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
