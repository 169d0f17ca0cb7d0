package main_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// Ctrl-C reaches every process of the terminal's foreground group.
func TestCtrlC(t *testing.T) {
	t.Parallel()
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		p := start(t)
		running := p.up()
		// A master under SIGSTOP must not keep it from ending in time.
		if err := syscall.Kill(running.process("m3").PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil {
			t.Fatal(err)
		}
		if code := p.ends(); code != 0 {
			t.Errorf("%v: exit code %d, want 0", s, code)
		}
		if out := p.output.String(); !strings.HasSuffix(out, "ns1 ns2 m1 m2 m3 m4 stopped.\n") {
			t.Errorf("%v: it ended with %q", s, out[max(0, len(out)-200):])
		}
		p.leavesNothing(running.Processes)
	}
}

// It can be stopped before it is up, too.
func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	p := start(t, "-puppetsrv", fakePuppetsrv(t, "exec sleep 1000"))
	p.says("master m1")
	if out, err := p.ask("-start", "m1"); err == nil || !strings.Contains(out, "still starting") {
		t.Errorf("-start: %v, %q", err, out)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "playground.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("playground.json before everything answers: %v", err)
	}
	if out, err := p.ask("-stop"); err != nil {
		t.Errorf("-stop: %v, %q", err, out)
	}
	p.leavesNothing(nil)
	if code := p.ends(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

// A playground that is killed itself takes its processes along, and the next
// start clears its files away; but never a process that only has a pid from
// them.
func TestLeftover(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	p.ends()
	for _, process := range s.Processes {
		eventually(t, process.Name+" has ended", func() bool { return !alive(process.PID) })
	}

	// A pid that is somebody else's by now; and a process of the playground
	// that has outlived it, as they do where there is no PR_SET_PDEATHSIG.
	bystander, survivor := sleeper(t), sleeper(t)
	s.Processes[2].PID = bystander.Process.Pid
	s.Processes[3].PID, s.Processes[3].Start = survivor.Process.Pid, startOf(t, survivor.Process.Pid)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "playground.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	survived := make(chan error, 1)
	go func() { survived <- survivor.Wait() }()

	second := startAt(t, p.dir, p.base)
	second.says(fmt.Sprintf("m2 (pid %d) of the left-over playground still runs: killing it", survivor.Process.Pid))
	second.says(fmt.Sprintf("a left-over playground was in %s (pid %d, ended without cleaning up): removed", p.dir, p.cmd.Process.Pid))
	<-survived
	s = second.up()
	if !alive(bystander.Process.Pid) {
		t.Error("a process that had only the pid of a left-over one was killed")
	}

	// -stop clears a left-over away as well.
	if err := second.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	second.ends()
	for _, process := range s.Processes {
		eventually(t, process.Name+" has ended", func() bool { return !alive(process.PID) })
	}
	if out, err := p.ask("-stop"); err != nil || !strings.Contains(out, "a left-over playground was in") {
		t.Errorf("-stop: %v, %q", err, out)
	}
	second.leavesNothing(s.Processes)
}

func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// startOf is the "start" of a process in playground.json.
func startOf(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skip(err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Skip(err)
	}
	return strings.TrimSpace(string(boot)) + "/" + strings.Fields(string(stat))[21]
}

func TestSecondStartIsRefused(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	other := startAt(t, p.dir, freeBase(t))
	if code := other.ends(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{
		fmt.Sprintf("a playground runs in %s already (pid %d)", p.dir, p.cmd.Process.Pid),
		fmt.Sprintf("`%s/playground -dir %s -stop`", bin, p.dir),
	} {
		if out := other.output.String(); !strings.Contains(out, want) {
			t.Errorf("%q does not say %q", out, want)
		}
	}

	// Under make it names the make target, and -dir only if it is not the default.
	for dir, want := range map[string]string{
		filepath.Dir(p.dir): "`make run ARGS=-stop`",
		t.TempDir():         "`make run ARGS='-dir " + p.dir + " -stop'`",
	} {
		cmd := exec.Command(filepath.Join(bin, "playground"), "-dir", p.dir)
		cmd.Dir = dir
		cmd.Env = append(environ(), "MAKELEVEL=1")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), want) {
			t.Errorf("under make in %s: %v, %q does not say %q", dir, err, out, want)
		}
	}

	// Another directory and the same addresses: it is told whose they are.
	beside := startAt(t, filepath.Join(t.TempDir(), "run"), p.base)
	if code := beside.ends(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	want := fmt.Sprintf("%s1:10053 (udp, for ns1) is in use by the playground in %s (pid %d): stop it with", p.base, p.dir, p.cmd.Process.Pid)
	if out := beside.output.String(); !strings.Contains(out, want) || strings.Count(out, "in use") != 1 {
		t.Errorf("%q does not say %q, or not only once", out, want)
	}
	beside.leavesNothing(nil)

	// Neither has harmed the first.
	for _, process := range s.Processes {
		if !alive(process.PID) {
			t.Errorf("%s has ended", process.Name)
		}
	}
	if out, err := p.ask("-stop"); err != nil {
		t.Errorf("-stop: %v, %q", err, out)
	}
	p.leavesNothing(s.Processes)
}

func TestPortInUse(t *testing.T) {
	t.Parallel()
	base := freeBase(t)
	listener, err := net.Listen("tcp", base+"12:18140")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.ListenPacket("udp", base+"2:10053")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	p := startAt(t, filepath.Join(t.TempDir(), "run"), base)
	if code := p.ends(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	me := fmt.Sprintf(" by playground.test (pid %d): stop that, or choose another port with ", os.Getpid())
	for _, want := range []string{
		base + "12:18140 (tcp, for m2) is in use" + me + "-master-port\n",
		base + "2:10053 (udp, for ns2) is in use" + me + "-dns-port\n",
	} {
		if out := p.output.String(); !strings.Contains(out, want) {
			t.Errorf("%q does not say %q", out, want)
		}
	}
	p.leavesNothing(nil)
}

// TEST-NET-3 stands in for the loopback addresses that macOS does not have.
func TestAddressesAbsent(t *testing.T) {
	t.Parallel()
	p := startAt(t, filepath.Join(t.TempDir(), "run"), "203.0.113.")
	if code := p.ends(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, want := range []string{
		"does not have the address 203.0.113.1, 203.0.113.2, 203.0.113.11, 203.0.113.12, 203.0.113.13, 203.0.113.14",
		"203.0.113.14",
		"until the next boot",
	} {
		if out := p.output.String(); !strings.Contains(out, want) {
			t.Errorf("%q does not say %q", out, want)
		}
	}
	p.leavesNothing(nil)
}

// What fails at the start is named, with the end of its log, which is kept.
func TestNodeFailsToStart(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, script string
		says         []string
	}{
		{"ends", "echo a terrible mistake; exit 3", []string{") ended by itself: exit status 3.", "    a terrible mistake\n"}},
		{"does not answer", "echo sleeping; exec sleep 1000", []string{") did not answer as it should within 10s: asking ", "    sleeping\n"}},
	} {
		// The masters are real, and this machine may be busy.
		p := start(t, "-timeout", "10s", "-puppetsrv", fakePuppetsrv(t, test.script))
		if code := p.ends(); code != 1 {
			t.Errorf("%s: exit code %d, want 1", test.name, code)
		}
		out := p.output.String()
		for _, want := range append(test.says, "kept: what failed is in the logs in "+p.dir) {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q does not say %q", test.name, out, want)
			}
		}
		if names, _ := filepath.Glob(p.dir + "/*"); len(names) != 1 || filepath.Base(names[0]) != "log" {
			t.Errorf("%s: it left %v, want log alone", test.name, names)
		}
		if logs, _ := filepath.Glob(p.dir + "/log/ns*.log"); len(logs) == 0 {
			t.Errorf("%s: no log of a node is kept", test.name)
		}

		// The kept logs are no obstacle, and go with the next run.
		again := startAt(t, p.dir, p.base, "-puppetsrv", fakePuppetsrv(t, "exec sleep 1000"))
		again.says("master m1")
		if out, err := again.ask("-stop"); err != nil {
			t.Errorf("%s: -stop: %v, %q", test.name, err, out)
		}
		again.leavesNothing(nil)
	}
}

// It is not up before its nodes have met, and have seen the masters: a command pasted at
// once must find both nodes, and may choose any master.
func TestNodesThatAreNotReady(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, corefile, says string }{
		{"do not meet", `s/ join [^ ]*//`, `asking the API of ns\d: ns\d\.example\.net is not in its cluster`},
		{"see no master", `s/^ *camaster /probe off\n&/`, `asking the API of ns\d: m\d\.example\.net has not shown it its certificate`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, "-timeout", "10s", "-puppetsrv", fakePuppetsrv(t, fmt.Sprintf(`sed -i '%s' "$2" && exec %s/puppetsrv "$@"`, test.corefile, bin)))
			if code := p.ends(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if out := p.output.String(); !regexp.MustCompile(" did not answer as it should within 10s: " + test.says).MatchString(out) {
				t.Errorf("it says %q", out)
			}
		})
	}
}

func TestDirectoryOfSomebodyElse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := filepath.Join(dir, "m1", "thesis.txt")
	if err := os.MkdirAll(filepath.Dir(theirs), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(theirs, []byte("42"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := startAt(t, dir, freeBase(t))
	if code := p.ends(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out := p.output.String(); !strings.Contains(out, `holds a "m1" that is not a playground's`) {
		t.Errorf("it says %q", out)
	}
	if out, err := p.ask("-stop"); err != nil {
		t.Errorf("-stop: %v, %q", err, out)
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "42" {
		t.Errorf("their file: %q, %v", b, err)
	}
}

func TestUsageErrors(t *testing.T) {
	t.Parallel()
	p := &playground{t: t, dir: filepath.Join(t.TempDir(), "run")}
	for _, test := range []struct {
		args []string
		says string
	}{
		{[]string{"ns1"}, `unexpected argument "ns1"`},
		{[]string{"-stop", "-start", "m1"}, "exclude each other"},
		{[]string{"-revoke", "operator.example.net", "-start", "m1"}, "exclude each other"},
		{[]string{"-targets", "hosts"}, "must be host or service"},
		{[]string{"-dns-port", "65536"}, `not a port: "65536"`},
		{[]string{"-dns-port", "0"}, "must not be 0"},
		{[]string{"-gossip-port", "0"}, "must not be 0"},
		{[]string{"-admin-port", "0"}, "must not be 0"},
		{[]string{"-member-port", "0"}, "must not be 0"},
		{[]string{"-member", "/nonexistent"}, "no puppetsrv-member binary at /nonexistent"},
		{[]string{"-base", "::1"}, "must be an IPv4 address"},
		{[]string{"-base", "127.0.0.250"}, "at most 240"},
		{[]string{"-puppetsrv", "/nonexistent"}, "no puppetsrv binary at /nonexistent"},
	} {
		out, err := p.ask(test.args...)
		if err == nil || !strings.Contains(out, test.says) {
			t.Errorf("%v: %v, %q; want %q", test.args, err, out, test.says)
		}
	}
	p.leavesNothing(nil)
}
