package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/evidence"
	"github.com/puppetsrv/puppetsrv/internal/member"
)

// memberName is what the member of a master is called here: m1-member.
func (m master) memberName() string { return m.name + "-member" }

func (l layout) memberPath(m master) string { return filepath.Join(l.dir, m.name, "member.yaml") }

// cadirPath is where a CA-capable master has the CA's files. The first camaster's are
// there from the start; the others' come by replication.
func (l layout) cadirPath(m master) string   { return filepath.Join(l.dir, m.name, "ca") }
func (l layout) hostCRLPath(m master) string { return filepath.Join(l.dir, m.name, "crl.pem") }

// dashboardPath is a file that is there while the role is open: the hook of a service
// that only the camaster runs.
func (l layout) dashboardPath(m master) string { return filepath.Join(l.dir, m.name, "dashboard") }

// memberFile is the configuration of a master's member. Somebody will read it to learn
// how theirs should look; on a real host nearly all of `puppet` is the layout's.
func (l layout) memberFile(m master) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	list := func(words ...string) string {
		for i, w := range words {
			words[i] = fmt.Sprintf("%q", w)
		}
		return "[" + strings.Join(words, ", ") + "]"
	}
	var nodes, join, replicas []string
	for _, n := range l.nodes {
		nodes, join = append(nodes, n.host), append(join, n.gossip.String())
	}
	for _, other := range l.masters {
		if other.ca && other != m {
			replicas = append(replicas, other.host)
		}
	}
	line("# The member of %s: written by the playground.", m.host)
	line("layout: debian")
	line("certname: %s", m.host)
	line("datacenter: %s", m.datacenter)
	line("camaster: puppet-camaster.%s", zoneName)
	line("port: %d", m.address.Port())
	line("nodes: %s", list(nodes...))
	line("gossip:")
	line("  bind: %q", m.gossip)
	line("  join: %s", list(join...))
	line("  key: %q", l.gossipKeyPath(m.name))
	line("  profile: local")
	line("listen: %q", m.member)
	line("state: %q", filepath.Join(l.dir, m.name, "state"))
	line("socket: %q", l.socketPath(m.name))
	if m.metrics.Port() != 0 {
		line("metrics: %q", m.metrics)
	}
	line("puppet:")
	line("  cert: %q", l.certPath(m.name))
	line("  key: %q", l.keyPath(m.name))
	line("  ca: %q", l.caPath())
	line("  crl: %q", l.hostCRLPath(m))
	if m.ca {
		line("  cadir: %q", l.cadirPath(m))
	}
	line("  environments: %q", filepath.Join(l.dir, m.name, "environments"))
	// By address: the zone's names resolve elsewhere. The certificate is verified for the
	// certname.
	line("  url: %q", "https://"+m.address.String())
	if m.ca {
		open := l.dashboardPath(m)
		line("roles:")
		line("  ca:")
		line("    mode: hot")
		line("    replicas: %s", list(replicas...))
		line("  hooks:")
		line("    - name: dashboard")
		line("      open: %s", list("touch", open))
		line("      close: %s", list("rm", "-f", open))
		line("      check: %s", list("test", "-e", open))
	}
	line("interval: 500ms")
	return b.String()
}

// checkMember returns nil when the member has decided enough for puppetserver to
// start: nothing of the role is open that should not be. A real host's unit asks the
// same. A standby whose CA has not come yet is good enough the first time, since the stub
// does not do what the gate is for, which is to make another CA.
func (l layout) checkMember(ctx context.Context, m master, first bool) (seen string, err error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	gate, err := member.NewLocal(l.socketPath(m.name)).Gate(ctx, "puppetserver")
	if err != nil {
		return "", fmt.Errorf("asking %s whether puppetserver may start: %w", m.memberName(), err)
	}
	if !gate.Allowed && (!first || m.host == l.camaster) {
		return "", fmt.Errorf("%s does not let puppetserver start: %s", m.memberName(), gate.Reason)
	}
	return "runs", nil
}

// appoint makes the first camaster one by the register, for a member opens its role for
// that alone, and returns when its role is open, the others have the CA's files, and
// every node knows.
func (l layout) appoint(ctx context.Context) error {
	for i, n := range l.nodes {
		client, err := admin.NewClient("unix://"+l.socketPath(n.name), admin.ClientOptions{Timeout: attempt})
		if err != nil {
			return err
		}
		defer client.Close()
		c, err := client.Camaster(ctx)
		if err != nil {
			return fmt.Errorf("asking the API of %s: %w", n.name, err)
		}
		if c.Version == "0" && i == 0 { // by one of them: two would write against each other
			_, err := client.SetCamaster(ctx, admin.SetCamaster{Host: l.camaster, Reason: "the playground starts", Expect: c.Version})
			if err != nil {
				return fmt.Errorf("setting the first camaster: %w", err)
			}
		}
		masters, err := client.Masters(ctx)
		if err != nil {
			return fmt.Errorf("asking the API of %s: %w", n.name, err)
		}
		if err := l.settled(masters); err != nil {
			return fmt.Errorf("as %s sees it: %w", n.name, err)
		}
	}
	return nil
}

// settled says what a node still waits to hear of the members.
func (l layout) settled(masters []admin.Master) error {
	seen := make(map[string]*evidence.Evidence)
	for _, m := range masters {
		if m.Member != nil && m.Member.Fresh {
			seen[strings.TrimSuffix(m.Host, ".")] = &m.Member.Evidence
		}
	}
	hash := ""
	for _, m := range append([]master{l.first()}, l.masters...) {
		e := seen[m.host]
		if e == nil {
			return fmt.Errorf("the member of %s has not been heard", m.name)
		}
		if !m.ca {
			continue
		}
		want := evidence.Standby
		if m.host == l.camaster {
			want = evidence.Open
		}
		if e.Role == nil || e.CA == nil {
			return fmt.Errorf("the member of %s says nothing of its role", m.name)
		}
		if e.Role.State != want {
			return fmt.Errorf("the role of %s is %s (%s), and is to be %s", m.name, e.Role.State, e.Role.Reason, want)
		}
		if hash == "" {
			hash = e.CA.Hash
		}
		if !e.CA.Complete || e.CA.Hash != hash {
			return fmt.Errorf("%s does not have the CA's files yet: %s", m.name, e.CA.Problem+e.CA.Error)
		}
	}
	return nil
}
