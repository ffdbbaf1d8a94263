package main

import (
	"bytes"
	"fmt"
	"strings"
)

// roff writes the page in the man macros (man-pages(7) has the order of the parts).
func (p *page) roff() []byte {
	var b bytes.Buffer
	source := "Alcove"
	if p.version != "" {
		source += " " + p.version
	}
	fmt.Fprintf(&b, ".TH %s 1 \"\" %s \"Alcove\"\n", quote(strings.ToUpper(p.name())), quote(source))
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escape(p.name()), escape(p.short))
	b.WriteString(".SH SYNOPSIS\n")
	for i, s := range p.synopsis {
		if i > 0 {
			b.WriteString(".br\n")
		}
		fmt.Fprintf(&b, ".B %s\n", quote(s))
	}
	b.WriteString(".SH DESCRIPTION\n")
	for _, d := range p.description {
		if strings.HasPrefix(d, "  ") {
			verbatim(&b, strings.Split(d, "\n"))
			continue
		}
		fmt.Fprintf(&b, ".PP\n%s\n", escape(d))
	}
	items(&b, "COMMANDS", p.commands)
	items(&b, "OPTIONS", p.options)
	items(&b, "OPTIONS OF ALL COMMANDS", p.inherited)
	if len(p.examples) > 0 {
		b.WriteString(".SH EXAMPLES\n")
		verbatim(&b, p.examples)
	}
	if p.exit != "" {
		fmt.Fprintf(&b, ".SH EXIT STATUS\n%s\n", escape(p.exit))
	}
	if len(p.also) > 0 {
		b.WriteString(".SH SEE ALSO\n")
		for i, name := range p.also {
			end := ","
			if i == len(p.also)-1 {
				end = ""
			}
			fmt.Fprintf(&b, ".BR %s (1)%s\n", escape(name), end)
		}
	}
	return b.Bytes()
}

func items(b *bytes.Buffer, title string, list []item) {
	if len(list) == 0 {
		return
	}
	fmt.Fprintf(b, ".SH %s\n", quote(title))
	for _, i := range list {
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", quote(i.name), escape(i.text))
	}
}

func verbatim(b *bytes.Buffer, lines []string) {
	b.WriteString(".PP\n.RS 2\n.nf\n")
	for _, l := range lines {
		fmt.Fprintf(b, "%s\n", escape(l))
	}
	b.WriteString(".fi\n.RE\n")
}

// escape makes text that roff prints as it is. A control character counts only at the beginning of a line, a hyphen
// must stay one that can be copied to a shell.
func escape(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`, "`", `\(ga`, "'", `\(aq`, "^", `\(ha`, "~", `\(ti`).Replace(s)
	if strings.HasPrefix(s, ".") {
		s = `\&` + s
	}
	return s
}

// quote makes one argument of a macro.
func quote(s string) string {
	return `"` + strings.ReplaceAll(escape(s), `"`, `\(dq`) + `"`
}
