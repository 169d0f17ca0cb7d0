//go:build linux

package stack

import (
	"context"
	"fmt"
	"regexp"
	"strings"
)

// The agents that are there from the start.
var Agents = []string{"a1", "a2"}

// DomainOf is what agents of a datacenter have in srv_domain.
func DomainOf(datacenter string) string { return datacenter + "." + Domain }

// NewAgent makes a host with nothing but the package: Puppet is not configured. Its
// datacenter is known by its address, and that by the class.
func (s *Stack) NewAgent(short, datacenter string) (*Host, error) {
	s.agents[datacenter]++
	network := "10.1.0"
	if datacenter == "datacenter2" {
		network = "10.2.0"
	}
	h, err := s.newHost(short, datacenter, fmt.Sprintf("%s.%d", network, 100+s.agents[datacenter]))
	if err != nil {
		return nil, err
	}
	if err := h.Write("/etc/puppet/puppet.conf", "[main]\ncertname = "+h.FQDN()+"\n", 0o644, "root"); err != nil {
		return nil, err
	}
	return h, s.resolve(h)
}

// FirstRun is a new host's first run: what it will have by the class is given by hand. It
// gets its certificate by a signing request.
func (h *Host) FirstRun(ctx context.Context, more ...string) Result {
	return h.Agent(ctx, append([]string{"--use_srv_records", "--srv_domain", DomainOf(h.Datacenter), "--server", Camaster, "--waitforcert", "1", noKeepalive, "0"}, more...)...)
}

// Agent runs the Puppet agent once, as people do by hand (puppet agent --test). Exit codes:
// 0 nothing to do, 2 changes, 4 failures, 6 both, 1 no run.
func (h *Host) Agent(ctx context.Context, more ...string) Result {
	return h.StartAgent(ctx, more...).Wait()
}

// StartAgent starts such a run.
func (h *Host) StartAgent(ctx context.Context, more ...string) *Process {
	return h.Start(ctx, append([]string{"puppet", "agent", "--test", "--color", "false"}, more...)...)
}

// ScheduledRun runs the Puppet agent once, as its daemon does at each interval: without a new
// catalog it applies the cached one, which --test forbids whatever else is said. Exit codes are
// those of Agent.
func (h *Host) ScheduledRun(ctx context.Context, more ...string) Result {
	return h.Run(ctx, append([]string{"puppet", "agent", "--onetime", "--no-daemonize", "--no-splay", "--verbose", "--detailed-exitcodes", "--color", "false"}, more...)...)
}

// Applied reports whether a run applied its catalog without a failure.
func (r Result) Applied() bool { return r.Code == 0 || r.Code == 2 }

// Setting is what the agent on a host goes by.
func (h *Host) Setting(ctx context.Context, name string) (string, error) {
	r := h.Run(ctx, "puppet", "config", "print", "--section", "agent", name)
	return strings.TrimSpace(r.Out), r.Error()
}

// connection is the Puppet agent's notice, with --debug, of a connection that was made.
var connection = regexp.MustCompile(`Starting connection for https://([^:]+):8140`)

// Masters are the names that a run with --debug connected to, each once, in that order.
func (r Result) Masters() (names []string) {
	has := make(map[string]bool)
	for _, m := range connection.FindAllStringSubmatch(r.Out+r.Err, -1) {
		if !has[m[1]] {
			has[m[1]] = true
			names = append(names, m[1])
		}
	}
	return names
}
