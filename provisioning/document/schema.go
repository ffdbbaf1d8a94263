package document

import "embed"

// Schemas holds a JSON Schema (draft 2020-12) of the envelope, of every
// document, of the claim and of the enrolment, as schema/<name>.schema.json.
// They are for editors and for other programs; Decode and Validate decide.
//
//go:embed schema/*.schema.json
var Schemas embed.FS
