//go:build linux

package netns_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/member"
	"github.com/puppetsrv/puppetsrv/internal/netns"
	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// masters are the masters' hosts, and each one's datacenter.
var (
	masters      = []string{"m1", "m2", "m3", "m4"}
	datacenterOf = map[string]string{"m1": "datacenter1", "m2": "datacenter1", "m3": "datacenter2", "m4": "datacenter2"}
	nodeOf       = map[string]string{"datacenter1": "ns1", "datacenter2": "ns2"}
)

// memberSite is a site whose masters have members. m1 and m3 may be camaster, each with a
// CA's directory of its own, of which m3's starts empty. Its hosts can be booted.
type memberSite struct {
	*site
	on    []string // masters with a member
	boots map[string]int
	ready map[string]<-chan struct{} // closed when the last member there has said READY=1
	db    *databases                 // nil: there is none
	// samplers counts them, for the names of what they ask for.
	samplers int
}

// newMemberSite starts everything and returns when m1's role is open, m3 is a standby
// with the same CA, and everything is well.
func newMemberSite(t *testing.T, on ...string) *memberSite {
	t.Helper()
	s := &memberSite{site: prepareSite(t, "local", "m1", "m3"), on: on, boots: make(map[string]int), ready: make(map[string]<-chan struct{})}
	s.prepare()
	s.begin()
	return s
}

// prepare makes the files of members and of the CA.
func (s *memberSite) prepare() {
	t := s.t
	t.Helper()
	for _, name := range masters {
		for _, dir := range []string{"state", "environments"} {
			if err := os.MkdirAll(s.path(name, dir), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		s.newBoot(name)
		s.hosts[name].Bind(s.path(name, "boot_id"), "/proc/sys/kernel/random/boot_id")
		if slices.Contains(s.on, name) {
			s.write(name+"/member.yaml", []byte(s.memberFile(name)))
		}
	}
	ca, err := stub.NewCADir(s.path("m1", "ca"), s.ca)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(s.path("m3", "ca"), 0o750); err != nil {
		t.Fatal(err)
	}
	crl, err := os.ReadFile(filepath.Join(ca.Path(), "ca_crl.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.write("crl.pem", crl)
	for _, name := range masters {
		s.write(name+"/crl.pem", crl)
	}
}

// memberFile is the configuration of a master's member.
func (s *memberSite) memberFile(name string) string {
	text := fmt.Sprintf(`layout: debian
certname: %[1]s.example.net
datacenter: %[2]s
camaster: puppet-camaster.example.net
nodes: [ns1.example.net, ns2.example.net]
gossip:
  bind: %[3]s
  key: %[4]s/gossip.key
  profile: %[5]s
state: %[4]s/%[1]s/state
socket: %[4]s/%[1]s/s
puppet:
  cert: %[4]s/%[1]s.pem
  key: %[4]s/%[1]s.key
  ca: %[4]s/ca.pem
  crl: %[4]s/%[1]s/crl.pem
  cadir: %[4]s/%[1]s/ca
  environments: %[4]s/%[1]s/environments
interval: 500ms
`, name, datacenterOf[name], s.hosts[name].Addr, s.dir, s.profile)
	if !slices.Contains(s.capable, name) {
		return text
	}
	var replicas []string
	for _, other := range s.capable {
		if other != name {
			replicas = append(replicas, other+".example.net")
		}
	}
	text += fmt.Sprintf("roles:\n  ca:\n    replicas: [%s]\n", strings.Join(replicas, ", "))
	if s.db != nil {
		text += s.db.roleOf(name)
	}
	return text
}

// begin starts the hosts for the first time. m1 is made the camaster by the register, for
// a member opens its role for that alone; m3's puppetserver starts once the CA has come.
func (s *memberSite) begin() {
	s.t.Helper()
	s.start(s.nodes["ns1"])
	s.start(s.nodes["ns2"])
	s.boot(slices.DeleteFunc(slices.Clone(masters), func(name string) bool { return name == "m3" })...)
	s.startMember("m3")
	eventually(s.t, "ns1 has seen m1 and heard its member", func() bool {
		m := s.master(s.nodes["ns1"], "m1")
		return m.Certificate != nil && down(m) == 0 && s.told(s.nodes["ns1"], "m1") != nil
	})
	eventually(s.t, "m1 is made the camaster", func() bool {
		c, err := s.nodes["ns1"].client.SetCamaster(s.t.Context(), admin.SetCamaster{Host: "m1.example.net", Reason: "the first one", Expect: "0"})
		return err == nil && c.Met
	})
	s.services("m3")
	s.until(append(s.well(), s.stands("m1"), s.inStep()), patience)
}

// newBoot gives a host another name for its boot, as its kernel would have.
func (s *memberSite) newBoot(name string) {
	s.boots[name]++
	// In place: it is this very file that the host's processes see.
	s.write(name+"/boot_id", fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", s.boots[name]))
}

// startMember starts a host's member, as a unit of Type=notify.
func (s *memberSite) startMember(name string) {
	s.t.Helper()
	path := s.path(name, "notify")
	_ = os.Remove(path) // that of the one before
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		s.t.Fatal(err)
	}
	ready, done := make(chan struct{}), make(chan struct{})
	s.ready[name] = ready
	go func() {
		defer close(done)
		tell := sync.OnceFunc(func() { close(ready) })
		for buf := make([]byte, 4096); ; {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				tell()
			}
		}
	}()
	s.t.Cleanup(func() { conn.Close(); <-done })
	cmd := s.memberCommand(context.Background(), name, "run")
	cmd.Env = append(environ(), "NOTIFY_SOCKET="+path)
	s.run(name+"-member", cmd)
}

// boot starts hosts that are off, as their units are ordered: a member first, and a service
// only when the member lets it.
func (s *memberSite) boot(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if n := s.nodes[name]; n != nil {
			s.start(n)
			continue
		}
		s.newBoot(name)
		if slices.Contains(s.on, name) {
			s.startMember(name)
		}
	}
	for _, name := range names {
		if s.nodes[name] == nil {
			s.services(name)
		}
	}
}

// services starts what is not the member's on a master's host.
func (s *memberSite) services(name string) {
	s.t.Helper()
	args := []string{"-localcacert", s.path("ca.pem"), "-hostcrl", s.path(name, "crl.pem")}
	if slices.Contains(s.capable, name) {
		args = append(args, "-cadir", s.path(name, "ca"))
	}
	if slices.Contains(s.on, name) {
		select {
		case <-s.ready[name]:
		case <-time.After(patience):
			s.t.Fatalf("the member on %s is not ready", name)
		}
		if s.db != nil {
			s.db.unit(name)
		}
		s.gate(name, "puppetserver")
	}
	s.startMaster(name, args...)
}

// gate waits until the member lets a service start.
func (s *memberSite) gate(name, service string) {
	s.t.Helper()
	var last answered
	eventually(s.t, "the member on "+name+" lets "+service+" start", func() bool {
		last = s.memberCtl(name, "gate", service, "--wait", "20s")
		if last.code == 3 {
			s.t.Fatalf("%s on %s: %v", service, name, last)
		}
		return last.code == 0
	})
}

// memberCtl runs a command of puppetsrv-member on a master's host.
func (s *memberSite) memberCtl(name string, args ...string) answered {
	s.t.Helper()
	a, err := output(s.memberCommand(s.t.Context(), name, args...))
	if err != nil {
		s.t.Fatal(err)
	}
	return a
}

func (s *memberSite) memberCommand(ctx context.Context, name string, args ...string) *exec.Cmd {
	return s.hosts[name].CommandContext(ctx, filepath.Join(bin, "puppetsrv-member"), append([]string{"--config", s.path(name, "member.yaml")}, args...)...)
}

// off takes the power from hosts, all at once.
func (s *memberSite) off(names ...string) {
	s.t.Helper()
	if err := netns.Kill(s.datacenter(names...)...); err != nil {
		s.t.Fatal(err)
	}
}

// local asks the member on a host what it makes of it.
func (s *memberSite) local(ctx context.Context, name string) (member.LocalStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return member.NewLocal(s.path(name, "s")).Status(ctx)
}

// role is that of a host, as its member says; the zero value where none says anything.
func (s *memberSite) role(name string) evidence.Role {
	st, err := s.local(s.t.Context(), name)
	if err != nil || st.Evidence.Role == nil {
		return evidence.Role{}
	}
	return *st.Evidence.Role
}

// told is what a node was told by the member of a master; nil where there is none that
// lives.
func (s *site) told(n *node, name string) *evidence.Evidence {
	if m := s.master(n, name); m.Member != nil && m.Member.Fresh {
		return &m.Member.Evidence
	}
	return nil
}

// master is what a node knows of one; empty where its API does not answer.
func (s *site) master(n *node, name string) admin.Master {
	for _, m := range s.status(n).Masters {
		if m.Host == name+".example.net" {
			return m
		}
	}
	return admin.Master{}
}

// stands is that a host is camaster for everybody, with its role open, and the other one
// that may be is its standby.
func (s *memberSite) stands(camaster string) condition {
	return condition{"roles", func() bool { return s.whyNot(camaster) == "" }}
}

// whyNot is what is not as stands wants it.
func (s *memberSite) whyNot(camaster string) string {
	version := s.status(s.nodes["ns1"]).Camaster.Version
	for _, n := range []*node{s.nodes["ns1"], s.nodes["ns2"]} {
		if c := s.status(n).Camaster; strings.TrimSuffix(c.Host, ".") != camaster+".example.net" || c.Version != version || c.Handover != "" {
			return fmt.Sprintf("%s has %s under %s as the camaster", n.name, c.Host, c.Version)
		}
		for _, name := range append([]string{camaster}, s.capable...) {
			want := evidence.Standby
			if name == camaster {
				want = evidence.Open
			}
			e := s.told(n, name)
			switch {
			case e == nil || e.Role == nil || e.CA == nil:
				return fmt.Sprintf("%s knows nothing of %s", n.name, name)
			case e.Role.State != want || e.Role.Version != version || e.Role.Former:
				return fmt.Sprintf("%s has %s as %s under %s", n.name, name, e.Role.State, e.Role.Version)
			case !e.CA.Complete:
				return fmt.Sprintf("%s has no whole CA on %s: %s", n.name, name, e.CA.Problem)
			}
		}
	}
	return ""
}

// inStep is that the CA is the same on all hosts that may have it, and everybody knows.
// While anything is signed it hardly ever is.
func (s *memberSite) inStep() condition {
	return condition{"CA in step", func() bool {
		inventories, hashes := make(map[string]bool), make(map[string]bool)
		for _, name := range s.capable {
			content, err := os.ReadFile(s.path(name, "ca", "inventory.txt"))
			inventories[fmt.Sprint(string(content), err)] = true
			for _, n := range []*node{s.nodes["ns1"], s.nodes["ns2"]} {
				hash := ""
				if e := s.told(n, name); e != nil && e.CA != nil {
					hash = e.CA.Hash
				}
				hashes[hash] = true
			}
		}
		return len(inventories) == 1 && len(hashes) == 1 && !hashes[""]
	}}
}
