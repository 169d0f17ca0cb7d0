package main_test

import (
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// terminal is where somebody pastes commands.
type terminal struct {
	t   *testing.T
	p   *playground
	dir string // where they are
	env []string
}

var (
	digCommand  = regexp.MustCompile(`^dig @(\S+) -p (\d+) \+noall \+answer (\S+) (\S+)( +#.*)?$`)
	killCommand = regexp.MustCompile(`^kill -9 ([\d ]*\d) +# (\S.*)$`)
)

// paste runs one command as printed, but dig, which not every machine has.
func (term *terminal) paste(line string) {
	term.t.Helper()
	if d := digCommand.FindStringSubmatch(line); d != nil {
		if n, err := dig(net.JoinHostPort(d[1], d[2]), d[3], d[4]); err != nil || n == 0 {
			term.t.Errorf("%s: %d records, %v", line, n, err)
		}
		return
	}
	if variable, ok := strings.CutPrefix(line, "export "); ok {
		out, err := term.command("printf %s " + variable).Output()
		if err != nil {
			term.t.Errorf("%s: %v", line, err)
		}
		term.env = append(term.env, string(out))
		return
	}
	if strings.HasSuffix(line, "puppetsrvctl watch") {
		term.watch(line)
		return
	}
	if strings.Contains(line, " failover ") {
		// Nobody types as fast as this test: the nodes need a moment to see who is gone.
		eventually(term.t, line+" --dry-run", func() bool { return term.command(line+" --dry-run").Run() == nil })
	}
	out, err := term.command(line).CombinedOutput()
	if err != nil || len(out) == 0 && !strings.HasPrefix(line, "kill ") {
		term.t.Errorf("%s: %v\n%s", line, err, out)
	}
	if k := killCommand.FindStringSubmatch(line); k != nil {
		names := strings.Fields(k[2])
		for i, pid := range strings.Fields(k[1]) {
			term.p.says(names[i] + " (pid " + pid + ") was killed by SIGKILL.")
		}
	}
}

func (term *terminal) command(line string) *exec.Cmd {
	cmd := exec.CommandContext(term.t.Context(), "bash", "-c", line)
	cmd.Dir, cmd.Env = term.dir, append(environ(), term.env...)
	return cmd
}

// watch presses Ctrl-C when it has seen something.
func (term *terminal) watch(line string) {
	term.t.Helper()
	cmd := term.command("exec " + line)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		term.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		term.t.Fatal(err)
	}
	_, err = stdout.Read(make([]byte, 1))
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); err != nil || code != 130 {
		term.t.Errorf("%s: %v, exit code %d, want 130", line, err, code)
	}
}

// Whatever it says to try works as printed, in this order.
func TestGuide(t *testing.T) {
	t.Parallel()
	p := start(t)
	s := p.up()
	all := p.followGuide()
	for _, want := range []string{
		"_x-puppet._tcp.datacenter1.example.net SRV", "_x-puppet._tcp.datacenter2.example.net SRV", "CNAME", "_x-puppet-ca._tcp", "AXFR",
		"puppetsrvctl status", "masters", "camaster set m3.example.net --reason drill\n", "drain m2 --reason drill --for ", "undrain m2", "watch",
		"--server https://" + p.base + "2:18153 --ssldir " + s.SSLDir + " status", "camaster set m1.example.net",
		"-start m2", "cluster", "-start ns1", "curl -s http://",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("nothing that it says to try has %q:\n%s", want, all)
		}
	}
	// It ran against this one, and the last flip undid the first.
	if got := p.camaster("ns2"); got.Host != "m1.example.net" || got.Reason != "the drill is over" || got.Actor != s.Operator {
		t.Errorf("the camaster is %+v", got)
	}
}

// Under make, paths are as somebody types them who stands where they ran make.
func TestGuideUnderMake(t *testing.T) {
	t.Parallel()
	wd := filepath.Dir(bin)
	dir := filepath.Join(t.TempDir(), "run")
	ssl, err := filepath.Rel(wd, filepath.Join(dir, "ssl"))
	if err != nil || !filepath.IsLocal(ssl) {
		t.Skipf("%s is not in %s", dir, wd)
	}
	p := startFrom(t, wd, []string{"MAKELEVEL=1"}, dir, freeBase(t))
	p.up()
	for _, want := range []string{
		"\n    " + filepath.Base(bin) + "/puppetsrvctl status\n",
		" --ssldir " + ssl + " status\n",
		"\n    make run ARGS='-dir " + dir + " -start ns1'\n",
	} {
		if !strings.Contains(p.output.String(), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// followGuide pastes what the guide says to try, and returns that.
func (p *playground) followGuide() string {
	p.t.Helper()
	term := &terminal{t: p.t, p: p, dir: p.t.TempDir()}
	_, guide, _ := strings.Cut(p.output.String(), "Try, in another terminal:")
	var tried strings.Builder
	for line := range strings.Lines(guide) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			term.paste(strings.TrimSpace(command))
			tried.WriteString(command)
		}
	}
	if term.env == nil {
		p.t.Error("it does not say which server to ask")
	}
	return tried.String()
}
