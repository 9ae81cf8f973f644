package gateway

// describe is the API's description, OpenAPI 3.1.
func (g *Gateway) describe() []byte { return []byte("{}") }
