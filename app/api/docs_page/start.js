// Starts Swagger UI on the gateway's own description.

// Swagger UI fills an empty form with invented values ("string", 0, random text for a pattern), and sends fields that
// are empty as empty texts: most such requests are refused. Here a form holds what the description says, and what is
// empty is not sent.
const honestForms = () => ({
  components: { ParameterIncludeEmpty: () => null },
  afterLoad({ fn }) {
    const sample = fn.getSampleSchema;
    const told = (field) => ["examples", "default", "const"].some((name) => name in field);
    const prefilled = (field, ...rest) =>
      told(field) || field.type === "array" ? sample(field, ...rest) : "";
    this.fn.getSampleSchema = (schema, type, ...rest) => {
      const plain = schema?.toJS ? schema.toJS() : schema;
      if (type === false) return prefilled(plain, type, ...rest); // one field of a form
      if (!FORMS.includes(type)) return sample(schema, type, ...rest);
      const fields = Object.entries(plain.properties).map(([name, field]) => [name, prefilled(field, false, ...rest)]);
      return Object.fromEntries(fields); // what Reset puts back
    };
  },
});
const FORMS = ["multipart/form-data", "application/x-www-form-urlencoded"];

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  plugins: [honestForms],
  deepLinking: true,
  defaultModelExpandDepth: 2, // a schema shows its fields' descriptions
  displayRequestDuration: true,
  persistAuthorization: true, // a reload keeps the login
  validatorUrl: null, // no badge from a validator on the internet
});
