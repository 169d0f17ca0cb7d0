package main

import (
	"slices"
	"strings"
	"time"

	"github.com/puppetsrv/puppetsrv/cmd/puppetsrvctl/completion"
)

// kinds are the names that completion asks the server for, by argument or flag.
var kinds = completion.Kinds{"host": "hosts", "to": "hosts", "datacenter": "datacenters", "id": "keys", "key": "history"}

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"For which shell: ${enum}."`
}

func (c *completionCommand) Run(s *session) error {
	p, err := parser(new(grammar))
	if err != nil {
		return err
	}
	script, err := completion.Script(c.Shell, p.Model, kinds)
	if err != nil {
		return err
	}
	return write(script)
}

// patience is how long a person at a prompt waits for names.
const patience = duration(time.Second)

type completeCommand struct {
	Kind string `arg:"" enum:"hosts,datacenters,keys,history" help:"What: ${enum}."`
	Line string `arg:"" optional:"" help:"The command line so far, for its flags."`
}

// Run prints names, one a line.
func (c *completeCommand) Run(s *session) error {
	s.flags.asOn(c.Line)
	s.flags.Timeout = patience
	client, err := s.ask()
	if err != nil {
		return err
	}
	var names []string
	switch c.Kind {
	case "hosts", "history":
		masters, err := client.Masters(s.ctx)
		if err != nil {
			return err
		}
		for _, m := range masters {
			names = append(names, strings.TrimSuffix(m.Host, "."))
		}
		if c.Kind == "history" {
			names = append(names, "camaster")
		}
	case "datacenters":
		zones, err := client.Zones(s.ctx)
		if err != nil {
			return err
		}
		for _, z := range zones {
			names = append(names, z.Datacenter)
		}
	case "keys":
		keys, err := client.Keys(s.ctx)
		if err != nil {
			return err
		}
		for _, n := range keys.Nodes {
			for _, k := range n.Keys {
				names = append(names, k.ID)
			}
		}
	}
	slices.Sort(names)
	return write(lines(slices.Compact(names)))
}

// lines are names that a shell can take: one a line, and only such as cannot be
// anything else to it.
func lines(names []string) string {
	var b strings.Builder
	for _, name := range names {
		if strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-_.") == "" {
			b.WriteString(name + "\n")
		}
	}
	return b.String()
}

// asOn takes the flags that say whom to ask from a line that is still being typed.
func (f *flags) asOn(line string) {
	values := map[string]*string{
		"--server": &f.Server, "--cert": &f.Cert, "--key": &f.Key, "--ca": &f.CA, "--crl": &f.CRL,
		"--ssldir": &f.SSLDir, "--certname": &f.Certname,
	}
	words := strings.Fields(line)
	for i, word := range words {
		name, value, ok := strings.Cut(word, "=")
		if !ok && i+1 < len(words) {
			value = words[i+1]
		}
		if target := values[name]; target != nil && value != "" {
			*target = strings.Trim(value, `"'`)
		}
	}
}
