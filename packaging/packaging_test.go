// Package packaging_test has systemd itself read the unit files.
package packaging_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// others are the units that ours are ordered by, as the packages have them.
var others = map[string]string{
	"puppetserver.service": "[Service]\nType=forking\nExecStart=/bin/true\nExecStop=/bin/true\nUser=puppet\n",
	"puppetdb.service":     "[Service]\nExecStart=/bin/true\n",
	"postgresql@.service":  "[Unit]\nPartOf=postgresql.service\nBefore=postgresql.service\n[Service]\nType=forking\nExecStart=-/bin/true\nPIDFile=/run/postgresql/%i.pid\n",
	"postgresql.service":   "[Service]\nType=oneshot\nExecStart=/bin/true\nRemainAfterExit=on\n",
}

// dropIns are where README.md says that the gates go.
var dropIns = map[string]string{
	"gate-puppetserver.conf": "puppetserver.service.d",
	"gate-puppetdb.conf":     "puppetdb.service.d",
	"gate-postgresql.conf":   "postgresql@.service.d",
}

func units(t *testing.T) map[string]string {
	t.Helper()
	all := make(map[string]string)
	entries, err := os.ReadDir("systemd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join("systemd", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all[e.Name()] = string(data)
	}
	return all
}

// root is a file system with everything in its place.
func root(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"usr/bin/puppetsrv", "usr/bin/puppetsrv-member", "bin/kill", "bin/true"} {
		write(name, "#!/bin/sh\n", 0o755)
	}
	for name, data := range others {
		write("lib/systemd/system/"+name, data, 0o644)
	}
	for _, target := range []string{"network.target", "network-online.target", "nss-lookup.target", "sysinit.target", "basic.target", "shutdown.target", "multi-user.target", "system.slice", "-.slice"} {
		write("lib/systemd/system/"+target, "[Unit]\nDescription="+target+"\n", 0o644)
	}
	for name, data := range units(t) {
		if in, ok := dropIns[name]; ok {
			write("etc/systemd/system/"+in+"/puppetsrv.conf", data, 0o644)
		} else {
			write("lib/systemd/system/"+name, data, 0o644)
		}
	}
	return dir
}

func TestSystemdUnderstandsTheUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("NO SYSTEMD: nobody has verified the unit files")
	}
	dir := root(t)
	for _, name := range []string{"puppetsrv.service", "puppetsrv-member.service", "puppetsrv-drain.service", "puppetserver.service", "puppetdb.service", "postgresql@15-main.service"} {
		out, err := exec.Command("systemd-analyze", "verify", "--man=no", "--root="+dir, name).CombinedOutput()
		// What it does not understand it tells and does not count.
		if err != nil || strings.Contains(string(out), dir) || strings.Contains(string(out), "Unknown") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// A gate that is not run as root cannot reach the member, and one that is not before the
// service's own start is none.
func TestGates(t *testing.T) {
	all := units(t)
	for file, in := range dropIns {
		service := strings.TrimSuffix(strings.TrimPrefix(file, "gate-"), ".conf")
		for _, line := range []string{"After=puppetsrv-member.service", "Wants=puppetsrv-member.service", "ExecStartPre=+/usr/bin/puppetsrv-member gate " + service} {
			if !slices.Contains(strings.Split(all[file], "\n"), line) {
				t.Errorf("%s has no %s", file, line)
			}
		}
		if !strings.Contains(all[file], in) {
			t.Errorf("%s does not say that it belongs into %s", file, in)
		}
	}
	member := all["puppetsrv-member.service"]
	before := regexp.MustCompile(`(?m)^Before=(.*)$`).FindStringSubmatch(member)
	for _, unit := range []string{"puppetserver.service", "puppetdb.service", "postgresql.service"} {
		if before == nil || !slices.Contains(strings.Fields(before[1]), unit) {
			t.Errorf("the member is not ordered before %s", unit)
		}
	}
	for _, line := range []string{"Type=notify", "WatchdogSec=30", "ExecReload=/bin/kill -HUP $MAINPID", "KillMode=process"} {
		if !slices.Contains(strings.Split(member, "\n"), line) {
			t.Errorf("the member's unit has no %s", line)
		}
	}
}

// Commands in the units are those that the man page has.
func TestUnitsRunWhatThereIs(t *testing.T) {
	page, err := os.ReadFile("../cmd/puppetsrv-member/README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile(`(?m)^Exec\w+=[-+]*/usr/bin/puppetsrv-member (\S+)`)
	flags := regexp.MustCompile(`--[a-z]+`)
	n := 0
	for name, text := range units(t) {
		for _, m := range commands.FindAllStringSubmatch(text, -1) {
			n++
			if !strings.Contains(string(page), "`"+m[1]+"`") {
				t.Errorf("%s runs %s, which the man page has not", name, m[1])
			}
		}
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "Exec") {
				continue
			}
			for _, f := range flags.FindAllString(line, -1) {
				if !strings.Contains(string(page), f) {
					t.Errorf("%s gives %s, which the man page has not", name, f)
				}
			}
		}
	}
	if n != 6 {
		t.Errorf("%d commands", n)
	}
}
