package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/internal/admin"
	"github.com/puppetsrv/puppetsrv/internal/gossip"
	"github.com/puppetsrv/puppetsrv/internal/stub"
	"github.com/puppetsrv/puppetsrv/internal/trust"
)

// operator is the certname that may write over https.
const operator = "operator." + zoneName

// cluster is the nodes of one site, which gossip, encrypted, and answer the API.
type cluster struct {
	site     *site
	members  []*member
	versions []string // of the camaster's register, as the API gave them out
}

// member is one node of a cluster.
type member struct {
	*node
	cluster     *cluster
	host        string
	gossip, api netip.AddrPort
	identity    string        // file with its certificate and key
	key         string        // file with the gossip key
	local       *admin.Client // over its unix socket
	remote      *admin.Client // over https, as the operator
}

// newCluster starts so many nodes of a site, in its datacenters in turn, and
// returns when all of them know each other and agree.
func (b *bench) newCluster(s *site, size int) (*cluster, error) {
	crl, err := s.ca.CRL()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.crl(), crl, 0o644); err != nil {
		return nil, err
	}
	key, err := gossip.Generate()
	if err != nil {
		return nil, fmt.Errorf("making the gossip key: %w", err)
	}
	c := &cluster{site: s}
	address := nodeAddress
	for i := range size {
		name := fmt.Sprintf("ns%d", i+1)
		m := &member{cluster: c, host: name + "." + zoneName, key: filepath.Join(s.dir, name+".key")}
		if err := m.place(address); err != nil {
			return nil, err
		}
		if m.identity, err = s.issue(name, s.ca, stub.IssueOptions{CommonName: m.host, IPAddresses: []netip.Addr{address}}); err != nil {
			return nil, err
		}
		if err := os.WriteFile(m.key, []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600); err != nil {
			return nil, err
		}
		c.members = append(c.members, m)
		address = address.Next()
	}
	if err := c.connect(); err != nil {
		return nil, err
	}
	for i, m := range c.members {
		name, _, _ := strings.Cut(m.host, ".")
		if m.node, err = b.startNode(s, filepath.Base(s.dir)+"-"+name, m.gossip.Addr(), nodeOptions{location: i%s.datacenters + 1, member: m}); err != nil {
			return nil, err
		}
	}
	return c, c.agree(b.ctx)
}

// place finds the ports that others must know before the node is started.
func (m *member) place(address netip.Addr) error {
	for _, at := range []*netip.AddrPort{&m.gossip, &m.api} {
		for at.Port() == 0 || at != &m.gossip && at.Port() == m.gossip.Port() {
			port, err := freePort(address)
			if err != nil {
				return err
			}
			*at = netip.AddrPortFrom(address, port)
		}
	}
	return nil
}

// connect makes the clients of every node's API. They connect when they ask.
func (c *cluster) connect() error {
	path, err := c.site.issue("operator", c.site.ca, stub.IssueOptions{CommonName: operator})
	if err != nil {
		return err
	}
	identity, err := trust.LoadIdentity(path, path)
	if err != nil {
		return err
	}
	authority, err := trust.Open(c.site.authority(), c.site.crl())
	if err != nil {
		return err
	}
	for _, m := range c.members {
		if m.local, err = admin.NewClient("unix://"+m.socket(), admin.ClientOptions{}); err != nil {
			return err
		}
		if m.remote, err = admin.NewClient("https://"+m.api.String(), admin.ClientOptions{Identity: identity, Authority: authority}); err != nil {
			return err
		}
	}
	return nil
}

// close closes the clients; the processes are the run's.
func (c *cluster) close() {
	for _, m := range c.members {
		m.local.Close()
		m.remote.Close()
	}
}

func (s *site) authority() string { return filepath.Join(s.dir, "ca.pem") }
func (s *site) crl() string       { return filepath.Join(s.dir, "crl.pem") }

func (m *member) socket() string { return m.key + ".sock" }

// properties are those of a plugin's block that make the node a member.
func (m *member) properties() string {
	var join, sign []string
	for _, o := range m.cluster.members {
		sign = append(sign, o.host)
		if o != m {
			join = append(join, o.gossip.String())
		}
	}
	s := m.cluster.site
	var b strings.Builder
	for _, words := range [][]string{
		{"tls", m.identity, m.identity, s.authority()},
		{"crl", s.crl()},
		{"node", m.host},
		{"gossip", m.gossip.String(), "join", strings.Join(join, " "), "key", m.key, "profile", "local"},
		{"admin", "unix://" + m.socket(), "https://" + m.api.String()},
		{"admin_allow", "sign", strings.Join(sign, " ")},
		{"admin_allow", "write", operator},
	} {
		fmt.Fprintf(&b, "        %s\n", strings.Join(words, " "))
	}
	return b.String()
}

// agree waits until every node says that all nodes live and agree with it.
func (c *cluster) agree(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for _, m := range c.members {
		for {
			err := m.agrees(ctx)
			if err == nil {
				break
			}
			if err := m.alive(); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("the nodes do not agree after %v: %w", patience, err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// agrees says in what a node sees disagreement, nil for none.
func (m *member) agrees(ctx context.Context) error {
	status, err := m.local.Status(ctx)
	if err != nil {
		return err
	}
	var wrong []error
	alive := 0
	for _, n := range status.Nodes {
		if n.State != "alive" {
			continue
		}
		alive++
		if !n.Agrees {
			wrong = append(wrong, fmt.Errorf("in the eyes of %s, %s serves %s %s with zones %+v", m.host, n.Name, n.Camaster, n.Version, n.Zones))
		}
	}
	if want := len(m.cluster.members); alive != want {
		wrong = append(wrong, fmt.Errorf("%s sees %d nodes alive, want %d", m.host, alive, want))
	}
	return errors.Join(wrong...)
}
