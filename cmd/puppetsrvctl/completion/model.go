// Package completion writes completion scripts for shells from kong's model of a
// command line, so that they cannot fall behind it.
//
// The scripts are static; only the names that the server knows are asked for, with
// the program's hidden `complete KIND LINE`. Ready-made generators (kongplete over
// posener/complete) run the program at every key press instead, install themselves
// into start-up files and do not know fish's descriptions, for more code than this.
package completion

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"
)

// Kinds say which names may stand for a positional argument, or a flag's value.
type Kinds map[string]string // by the argument's or flag's name; the value is asked from the program

// Script is the completion script of a program for bash, zsh or fish.
func Script(shell string, app *kong.Application, kinds Kinds) (string, error) {
	m := describe(app, kinds)
	switch shell {
	case "bash":
		return m.bash(), nil
	case "zsh":
		return m.zsh(), nil
	case "fish":
		return m.fish(), nil
	}
	return "", fmt.Errorf("no completion for shell %q: there is one for bash, zsh and fish", shell)
}

// model is a command line as scripts need it.
type model struct {
	name     string
	commands []command
	flags    []flag // of all commands, each once
}

// command is one command; the program itself is the one with path "".
type command struct {
	path  string // "camaster set"
	help  string
	subs  []command
	flags []flag
	words []string // what its argument may be, if that is fixed
	kind  string   // else what to ask for; "" is nothing
}

// flag is one flag.
type flag struct {
	name  string // with its dashes
	short string // with its dash, or ""
	help  string
	value bool     // it takes one
	words []string // what the value may be, if that is fixed
	file  bool     // the value is a path
	kind  string   // else what to ask for; "" is nothing
}

func describe(app *kong.Application, kinds Kinds) model {
	m := model{name: app.Name}
	seen := make(map[string]bool)
	var visit func(n *kong.Node, path string, inherited []flag) command
	visit = func(n *kong.Node, path string, inherited []flag) command {
		c := command{path: path, help: firstSentence(n.Help), flags: inherited[:len(inherited):len(inherited)]}
		for _, f := range n.Flags {
			if f.Hidden {
				continue
			}
			one := flag{name: "--" + f.Name, help: firstSentence(f.Help), value: !f.IsBool() && !f.IsCounter(), file: f.Tag.Type == "path"}
			if f.Short != 0 {
				one.short = "-" + string(f.Short)
			}
			if one.value && !one.file {
				one.kind = kinds[f.Name]
			}
			if f.Enum != "" {
				one.words = strings.Split(f.Enum, ",")
			}
			c.flags = append(c.flags, one)
			if !seen[one.name] {
				seen[one.name] = true
				m.flags = append(m.flags, one)
			}
		}
		for _, p := range n.Positional {
			if p.Enum != "" {
				c.words = strings.Split(p.Enum, ",")
			} else {
				c.kind = kinds[p.Name]
			}
		}
		at := len(m.commands)
		m.commands = append(m.commands, c)
		for _, child := range n.Children {
			if child.Hidden || child.Type != kong.CommandNode {
				continue
			}
			c.subs = append(c.subs, visit(child, strings.TrimSpace(path+" "+child.Name), c.flags))
		}
		m.commands[at] = c
		return c
	}
	visit(app.Node, "", nil)
	return m
}

// firstSentence is a help text without its end and its second sentence.
func firstSentence(help string) string {
	help, _, _ = strings.Cut(help, ". ")
	return strings.TrimSuffix(help, ".")
}

// name is the last word of a command's path.
func (c command) name() string { return c.path[strings.LastIndexByte(c.path, ' ')+1:] }

// names are a flag's spellings.
func (f flag) names() []string {
	if f.short == "" {
		return []string{f.name}
	}
	return []string{f.short, f.name}
}

// spellings are the names of the flags that are wanted, between separators.
func spellings(flags []flag, separator string, want func(flag) bool) string {
	var all []string
	for _, f := range flags {
		if want(f) {
			all = append(all, f.names()...)
		}
	}
	return strings.Join(all, separator)
}

func anyFlag(flag) bool      { return true }
func takesValue(f flag) bool { return f.value }

// quote is s as one word of bash and zsh.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
