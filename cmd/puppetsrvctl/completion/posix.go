package completion

import (
	"fmt"
	"strings"
)

// walk is the part that bash and zsh share: it finds which command stands on the
// line before the cursor. It is not called path: zsh has that name for PATH.
func (m model) walk(b *strings.Builder) {
	fmt.Fprintf(b, `    if [[ $w == = ]]; then skip=1; continue; fi
    if [[ -n $skip ]]; then skip=; continue; fi
    case "$w" in
      %s) skip=1 ;;
      -*) ;;
      *)
        case "$here $w" in
`, spellings(m.flags, "|", takesValue))
	var known []string
	for _, c := range m.commands[1:] {
		parent := strings.TrimSuffix(strings.TrimSuffix(c.path, c.name()), " ")
		known = append(known, fmt.Sprintf("%q", parent+" "+c.name()))
	}
	fmt.Fprintf(b, "          %s) here=\"${here:+$here }$w\" ;;\n        esac ;;\n    esac\n  done\n", strings.Join(known, "|"))
}

func (m model) bash() string {
	var b strings.Builder
	fmt.Fprintf(&b, `# bash completion for %[1]s: source <(%[1]s completion bash)
_%[1]s() {
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
  local here= skip= words= flags= kind= w i
  COMPREPLY=()
  # bash takes --flag=value for three words.
  if [[ $cur == = ]]; then cur=
  elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    w=${COMP_WORDS[i]}
`, m.name)
	m.walk(&b)
	b.WriteString("  case \"$prev\" in\n")
	for _, f := range m.flags {
		switch {
		case len(f.words) > 0:
			fmt.Fprintf(&b, "    %s) COMPREPLY=($(compgen -W %s -- \"$cur\")); return ;;\n", strings.Join(f.names(), "|"), quote(strings.Join(f.words, " ")))
		case f.file:
			fmt.Fprintf(&b, "    %s) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", strings.Join(f.names(), "|"))
		case f.kind != "":
			fmt.Fprintf(&b, "    %s) COMPREPLY=($(compgen -W \"$(%s complete %s \"$COMP_LINE\" 2>/dev/null)\" -- \"$cur\")); return ;;\n", strings.Join(f.names(), "|"), m.name, f.kind)
		case f.value:
			fmt.Fprintf(&b, "    %s) return ;;\n", strings.Join(f.names(), "|"))
		}
	}
	b.WriteString("  esac\n  case \"$here\" in\n")
	for _, c := range m.commands {
		words := c.words
		for _, sub := range c.subs {
			words = append(words, sub.name())
		}
		fmt.Fprintf(&b, "    %s) words=%s kind=%s\n      flags=%s ;;\n",
			quote(c.path), quote(strings.Join(words, " ")), quote(c.kind), quote(spellings(c.flags, " ", anyFlag)))
	}
	fmt.Fprintf(&b, `  esac
  if [[ $cur == -* ]]; then words=$flags
  elif [[ -n $kind ]]; then words="$words $(%[1]s complete "$kind" "$COMP_LINE" 2>/dev/null)"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -F _%[1]s %[1]s
`, m.name)
	return b.String()
}

func (m model) zsh() string {
	var b strings.Builder
	fmt.Fprintf(&b, `#compdef %[1]s
# zsh completion for %[1]s: source <(%[1]s completion zsh), or as _%[1]s in $fpath
_%[1]s() {
  local cur=${words[CURRENT]} prev=${words[CURRENT-1]} here= skip= kind= w i
  local -a flags subs fixed
  for ((i = 2; i < CURRENT; i++)); do
    w=${words[i]}
`, m.name)
	m.walk(&b)
	b.WriteString("  case \"$prev\" in\n")
	for _, f := range m.flags {
		switch {
		case len(f.words) > 0:
			fmt.Fprintf(&b, "    %s) compadd -- %s; return ;;\n", strings.Join(f.names(), "|"), strings.Join(f.words, " "))
		case f.file:
			fmt.Fprintf(&b, "    %s) _files; return ;;\n", strings.Join(f.names(), "|"))
		case f.kind != "":
			fmt.Fprintf(&b, "    %s) compadd -- ${(f)\"$(%s complete %s \"$BUFFER\" 2>/dev/null)\"}; return ;;\n", strings.Join(f.names(), "|"), m.name, f.kind)
		case f.value:
			fmt.Fprintf(&b, "    %s) return ;;\n", strings.Join(f.names(), "|"))
		}
	}
	b.WriteString("  esac\n  case \"$here\" in\n")
	for _, c := range m.commands {
		fmt.Fprintf(&b, "    %s) kind=%s\n", quote(c.path), quote(c.kind))
		described := func(array string, entries []string) {
			fmt.Fprintf(&b, "      %s=(%s)\n", array, strings.Join(entries, " "))
		}
		var subs, flags, fixed []string
		for _, sub := range c.subs {
			subs = append(subs, quote(sub.name()+":"+colons(sub.help)))
		}
		for _, f := range c.flags {
			for _, name := range f.names() {
				flags = append(flags, quote(name+":"+colons(f.help)))
			}
		}
		for _, w := range c.words {
			fixed = append(fixed, quote(w))
		}
		described("subs", subs)
		described("fixed", fixed)
		described("flags", flags)
		b.WriteString("      ;;\n")
	}
	fmt.Fprintf(&b, `  esac
  if [[ $cur == -* ]]; then _describe -o flag flags; return; fi
  if (( ${#subs} )); then _describe command subs; fi
  if (( ${#fixed} )); then compadd -a fixed; fi
  if [[ -n $kind ]]; then compadd -- ${(f)"$(%[1]s complete "$kind" "$BUFFER" 2>/dev/null)"}; fi
}
if [[ $funcstack[1] == _%[1]s ]]; then _%[1]s "$@"; else compdef _%[1]s %[1]s; fi
`, m.name)
	return b.String()
}

// colons escapes what separates a word from its description.
func colons(s string) string { return strings.ReplaceAll(s, ":", `\:`) }
