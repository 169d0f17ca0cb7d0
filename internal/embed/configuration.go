package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/puppetsrv/puppetsrv/internal/stub"
)

// configuration is what the tested server is told. The masters are stubs: m1
// and m2 in datacenter1, m3 and m4 in datacenter2.
type configuration struct {
	dir                          string
	dns, metrics, ready, forward int // ports
	masters                      []*stub.Master
	identities                   []*stub.Identity
}

func masterName(i int) string { return fmt.Sprintf("m%d.example.net", i+1) }

// newConfiguration writes what the Corefile names, and starts the masters.
func newConfiguration(dir string) (*configuration, error) {
	c := &configuration{dir: dir}
	ports, err := freePorts(4)
	if err != nil {
		return nil, err
	}
	c.dns, c.metrics, c.ready, c.forward = ports[0], ports[1], ports[2], ports[3]
	ca, err := stub.NewCA("Puppet CA: " + masterName(0))
	if err != nil {
		return nil, err
	}
	for i := range 4 {
		id, err := ca.Issue(stub.IssueOptions{CommonName: masterName(i)})
		if err != nil {
			return nil, err
		}
		m, err := stub.NewMaster(at(0), id)
		if err != nil {
			return nil, err
		}
		c.masters, c.identities = append(c.masters, m), append(c.identities, id)
	}
	zone := `$TTL 60
@ IN SOA ns1 hostmaster 1 3600 600 604800 5
@ IN NS ns1
ns1 IN A ` + address + "\n"
	masters := zone
	for i := range c.masters {
		masters += fmt.Sprintf("m%d IN A %s\n", i+1, address)
	}
	for name, content := range map[string]string{
		"ca.pem":           string(ca.PEM()),
		"example.net.zone": masters,
		"example.org.zone": zone + "www IN A 192.0.2.80\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *configuration) close() {
	for _, m := range c.masters {
		m.Close()
	}
}

// block is the plugin's block with the given camaster.
func (c *configuration) block(camaster string) string {
	var b strings.Builder
	b.WriteString("    puppetsrv example.net {\n        zonefile example.net.zone\n        datacenter datacenter1\n        datacenter datacenter2\n")
	for i, m := range c.masters {
		fmt.Fprintf(&b, "        master %s datacenter%d port %d ca\n", masterName(i), i/2+1, m.Addr().Port())
	}
	fmt.Fprintf(&b, "        camaster puppet-camaster %s\n        location datacenter1\n        tls ca.pem\n        state state\n    }\n", camaster)
	return b.String()
}

// write makes the Corefile: puppetsrv in the midst of plugins that have to be
// before it (cache, transfer) and after it (file, forward) to work, and a
// second server block of another plugin.
func (c *configuration) write(name, block string) (path string, err error) {
	text := fmt.Sprintf(`.:%[2]d {
    bind %[1]s
    errors
    prometheus %[1]s:%[3]d
    ready %[1]s:%[4]d
    cache 30
    loadbalance
    transfer {
        to *
    }
%[6]s    file example.org.zone example.org
    forward . %[1]s:%[5]d
}
example.com:%[2]d {
    bind %[1]s
    whoami
}
`, address, c.dns, c.metrics, c.ready, c.forward, block)
	path = filepath.Join(c.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o644)
}
