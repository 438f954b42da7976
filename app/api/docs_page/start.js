// Starts Swagger UI on the gateway's own description.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  persistAuthorization: true, // a reload keeps the login
  validatorUrl: null, // no badge from a validator on the internet
});
