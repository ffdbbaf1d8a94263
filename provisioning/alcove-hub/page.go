package main

import "github.com/alcove-room/alcove/provisioning/hub"

// page is the call page that this program serves.
func page() hub.Page { return hub.Page{} }
