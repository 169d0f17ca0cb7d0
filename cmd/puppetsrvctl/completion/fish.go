package completion

import (
	"fmt"
	"slices"
	"strings"
)

func (m model) fish() string {
	var b strings.Builder
	var known []string
	for _, c := range m.commands[1:] {
		parent := strings.TrimSuffix(strings.TrimSuffix(c.path, c.name()), " ")
		known = append(known, quoteFish(parent+" "+c.name()))
	}
	fmt.Fprintf(&b, `# fish completion for %[1]s: %[1]s completion fish | source
function __%[1]s_at
    set -l here ''
    set -l skip 0
    for w in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $w
            case %[2]s
                set skip 1
            case '-*'
            case '*'
                switch "$here $w"
                    case %[3]s
                        set here (string trim -- "$here $w")
                end
        end
    end
    test "$here" = "$argv[1]"
end
complete -c %[1]s -f
`, m.name, spellings(m.flags, " ", takesValue), strings.Join(known, " "))

	global := m.commands[0].flags
	for _, f := range global {
		fmt.Fprintf(&b, "complete -c %s%s\n", m.name, f.fish(m.name))
	}
	for _, c := range m.commands {
		at := fmt.Sprintf("complete -c %s -n %s", m.name, quoteFish("__"+m.name+"_at "+quoteFish(c.path)))
		for _, sub := range c.subs {
			fmt.Fprintf(&b, "%s -a %s -d %s\n", at, sub.name(), quoteFish(sub.help))
		}
		if len(c.words) > 0 {
			fmt.Fprintf(&b, "%s -a %s\n", at, quoteFish(strings.Join(c.words, " ")))
		}
		if c.kind != "" {
			fmt.Fprintf(&b, "%s -a %s\n", at, quoteFish(ask(m.name, c.kind)))
		}
		for _, f := range c.flags {
			if !slices.ContainsFunc(global, func(g flag) bool { return g.name == f.name }) {
				fmt.Fprintf(&b, "%s%s\n", at, f.fish(m.name))
			}
		}
	}
	return b.String()
}

// ask is the substitution that asks the program for names.
func ask(program, kind string) string {
	return fmt.Sprintf("(%s complete %s (commandline -p) 2>/dev/null)", program, kind)
}

// fish is a flag as arguments of fish's complete.
func (f flag) fish(program string) string {
	s := " -l " + strings.TrimPrefix(f.name, "--")
	if f.short != "" {
		s += " -s " + strings.TrimPrefix(f.short, "-")
	}
	switch {
	case len(f.words) > 0:
		s += " -x -a " + quoteFish(strings.Join(f.words, " "))
	case f.file:
		s += " -r -F"
	case f.kind != "":
		s += " -x -a " + quoteFish(ask(program, f.kind))
	case f.value:
		s += " -x"
	}
	return s + " -d " + quoteFish(f.help)
}

// quoteFish is s as one word of fish, where a backslash counts within quotes.
func quoteFish(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}
